"""Where models are put together: on all devices, in their fastest placements where that is possible."""

from dataclasses import replace

import pytest

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.arrangement import arranged, arranged_as, preferring
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.memory.pools import exceeded_pools

FIRST, SECOND = Placement(devices=("GPU0",)), Placement(devices=("GPU1",))
BOTH = Placement(devices=("GPU0", "GPU1"), split=(1.0, 1.0))
HOST = 1000


def choices(size, key="", *, shares_host=False):
    """Whole on either device, over both of them, else on the host."""

    def on(placement, token_s, *parts):
        devices = tuple(
            DeviceShare(name, key or "alone", part if key else 0, 0 if key else part)
            for name, part in zip(placement.devices, parts, strict=True)
        )
        return Footprint(key, 0, 0, devices=devices, placement=placement, token_s=token_s)

    return (
        on(FIRST, 0.01, size),
        on(SECOND, 0.01, size),
        on(BOTH, 0.02, size // 2, size // 2),
        Footprint(key, 0, size, placement=ON_HOST, token_s=0.02 if shares_host else 0.1),
    )


def budgets(first, second, host=HOST):
    return {"host": host, "GPU0": first, "GPU1": second}


def where(placed):
    return {name: footprint.placement for name, footprint in placed.items()}


def test_models_are_put_on_different_devices_where_each_has_room():
    placed = arranged({"a": choices(10), "b": choices(20)}, budgets(100, 100))
    assert where(placed) == {"a": FIRST, "b": SECOND}


def test_the_device_with_the_most_room_left_is_taken_first():
    placed = arranged({"a": choices(10), "b": choices(10), "c": choices(60)}, budgets(50, 100))
    assert where(placed) == {"a": SECOND, "b": SECOND, "c": SECOND}
    assert where(arranged({"a": choices(60), "b": choices(30)}, budgets(50, 100))) == {"a": SECOND, "b": FIRST}


def test_models_on_the_same_file_share_their_weights_on_one_device():
    placed = arranged({"a": choices(40, "file"), "b": choices(40, "file"), "c": choices(40)}, budgets(100, 100))
    assert where(placed) == {"a": FIRST, "b": FIRST, "c": SECOND}


@pytest.mark.parametrize("sizes", [(30, 30, 90), (30, 30, 60, 60), (60, 30, 30, 60)])
def test_models_are_packed_where_the_last_ones_would_find_no_room_otherwise(sizes):
    models = {str(number): choices(size) for number, size in enumerate(sizes)}
    placed = arranged(models, budgets(90, 90))
    assert list(placed) == list(models)
    assert all(footprint.token_s == 0.01 for footprint in placed.values())
    assert not exceeded_pools(placed.values(), budgets(90, 90))


def test_where_some_have_no_fast_place_the_first_ones_have_the_best():
    models = {"a": choices(60), "b": choices(60), "c": choices(60)}
    assert where(arranged(models, budgets(90, 90))) == {"a": FIRST, "b": SECOND, "c": BOTH}
    assert where(arranged(models, budgets(70, 70))) == {"a": FIRST, "b": SECOND, "c": ON_HOST}
    assert where(arranged(models, budgets(70, 70, 0))) == {"a": FIRST, "b": SECOND}


def test_a_small_model_leaves_the_device_to_a_large_one_that_would_lose_more() -> None:
    small = tuple(replace(each, token_s=each.token_s / 20) for each in choices(30))
    models = {"small": small, "large": choices(80)}
    placed = arranged(models, budgets(90, 10))
    assert where(placed) == {"large": FIRST, "small": ON_HOST}
    assert list(placed) == ["large", "small"], "each then takes the first place that has room"
    equal = {"small": choices(30), "large": choices(80)}
    assert where(arranged(equal, budgets(90, 10))) == {"small": FIRST, "large": ON_HOST}
    # No model is left out for that.
    assert where(arranged(models, budgets(90, 10, 20))) == {"small": FIRST}


def test_the_host_is_no_equal_of_a_device_though_a_small_model_is_as_fast_there():
    models = {"a": choices(60, shares_host=True), "b": choices(60, shares_host=True)}
    assert where(arranged(models, budgets(70, 0))) == {"a": FIRST, "b": ON_HOST}
    assert where(arranged(models, budgets(70, 70))) == {"a": FIRST, "b": SECOND}


def test_a_model_that_never_fits_does_not_change_where_the_others_are():
    models = {"huge": choices(5000), "a": choices(10), "b": choices(10)}
    assert where(arranged(models, budgets(50, 50))) == {"a": FIRST, "b": SECOND}


def test_what_others_exceed_elsewhere_is_no_obstacle():
    beside = [choices(80)[0]]
    assert where(arranged({"a": choices(40), "b": choices(5)}, budgets(50, 50), beside)) == {"a": SECOND, "b": SECOND}


def test_a_plan_is_kept_as_long_as_all_fit_in_it():
    models = {"a": choices(30), "b": choices(30)}
    planned = {"a": SECOND, "b": SECOND}
    assert where(arranged_as(planned, models, budgets(100, 100))) == planned
    assert where(arranged_as(planned, models, budgets(100, 50))) == {"a": FIRST, "b": FIRST}
    assert where(arranged_as({"a": SECOND, "b": None}, models, budgets(100, 100))) == {"a": FIRST, "b": SECOND}


def test_a_plan_names_its_order_of_loads() -> None:
    small = tuple(replace(each, token_s=each.token_s / 20) for each in choices(30))
    models = {"small": small, "large": choices(80)}
    placed = arranged_as({"small": ON_HOST, "large": FIRST}, models, budgets(90, 10))
    assert list(placed) == ["large", "small"]
    assert where(placed) == {"large": FIRST, "small": ON_HOST}


def test_a_preferred_placement_comes_first_of_those_that_are_as_fast():
    every = choices(10, shares_host=True)
    order = [each.placement for each in preferring(every, SECOND)]
    assert order == [SECOND, FIRST, BOTH, ON_HOST]
    assert [each.placement for each in preferring(every, BOTH)] == [FIRST, SECOND, BOTH, ON_HOST]
    assert preferring(every, None) == preferring(every, Placement(devices=("GPU9",))) == every
