"""Which quantisation is recommended, by what each takes and gives."""

from __future__ import annotations

import pytest

from modelyard.engine.hosts.speed_trial import Speed, extrapolated
from modelyard.yard.tuning import Profile, TunedType, recommend, weight_type


def tuned(label: str, bits: float, speed: float | None, *, fits: bool = True) -> TunedType:
    return TunedType(label, label, bits, 0, 100, 4096, fits, speed, speed)


TYPES = [tuned("Q8_0", 8.5, 20), tuned("Q6_K", 6.6, 33), tuned("Q4_K", 4.9, 40), tuned("Q2_K", 3.2, 60)]


@pytest.mark.parametrize(
    ("profile", "label"), [("quality", "Q8_0"), ("balanced", "Q6_K"), ("fast", "Q4_K")], ids=lambda value: value
)
def test_each_profile_has_its_type_and_none_of_less_than_four_bits(profile: Profile, label: str) -> None:
    number, reason = recommend(TYPES, profile)
    assert number is not None
    assert TYPES[number].label == label
    assert reason


def test_what_does_not_fit_is_not_recommended() -> None:
    large, small = (tuned(each.label, each.bits, None, fits=False) for each in TYPES[:2])
    assert recommend([large, small, TYPES[2]], "quality")[0] == 2
    assert recommend([large, small], "fast") == (None, "none fits the memory")


def test_the_only_type_is_recommended_as_such() -> None:
    assert recommend([tuned("Q2_K", 3.2, 50)], "balanced") == (0, "the only type that these files can be had in")


def test_few_bits_are_recommended_where_nothing_else_fits() -> None:
    assert recommend([tuned("Q4_K", 4.9, None, fits=False), TYPES[3]], "balanced")[0] == 1


def test_without_speeds_the_most_bits_count() -> None:
    types = [tuned("Q8_0", 8.5, None), tuned("Q4_K", 4.9, None)]
    assert recommend(types, "fast")[0] == recommend(types, "balanced")[0] == 0


def test_layers_that_were_not_computed_take_as_long_as_those_that_were() -> None:
    few, many = Speed(3.0, 0.3), Speed(5.0, 0.5)
    whole = extrapolated(few, many, few_layers=2, many_layers=4, layers=10)
    assert (whole.token_s, whole.prefill_token_s) == pytest.approx((11.0, 1.1))
    assert extrapolated(few, many, few_layers=1, many_layers=1, layers=1) == many


@pytest.mark.parametrize(
    ("label", "expected"),
    [("Q4_K_M", "Q4_K"), ("q8_0", "Q8_0"), ("UD-Q3_K_XL", "Q3_K"), ("IQ4_XS", "IQ4_XS"), ("MIXED", "BF16")],
)
def test_the_type_of_most_weights_is_in_the_label(label: str, expected: str) -> None:
    assert weight_type(label) == expected
