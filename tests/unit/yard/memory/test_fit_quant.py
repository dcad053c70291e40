"""Quantisations that are chosen for a set of models together."""

import itertools

import pytest

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.fit_quant import QuantOption, fit_quants
from modelyard.yard.memory.footprint import DeviceShare, Footprint

BITS = {"BF16": 16.0, "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7, "Q4_K_M": 4.89, "Q3_K_M": 4.0 - 0.01, "Q2_K": 3.16}
CONTEXT = 100


def option(name, label, parameters, context=CONTEXT, shortest=CONTEXT):
    weights = int(parameters * BITS[label] / 8)
    key = f"{name} {label}"
    return QuantOption(label, BITS[label], (Footprint(key, weights, context),), (Footprint(key, weights, shortest),))


def model(name, parameters, labels=tuple(BITS), **contexts):
    return [option(name, label, parameters, **contexts) for label in labels]


def size(parameters, label):
    return int(parameters * BITS[label] / 8) + CONTEXT


def chosen(models, budget, **more):
    fitted = fit_quants(models, {"host": budget}, **more)
    return {name: models[name][number].label for name, number in fitted.chosen.items()}


MODELS = {"a": model("a", 8000), "b": model("b", 8000)}


def test_everything_keeps_its_best_type_where_the_set_fits():
    assert chosen(MODELS, 2 * size(8000, "BF16")) == {"a": "BF16", "b": "BF16"}


def test_the_later_of_equal_models_is_lowered_first():
    assert chosen(MODELS, 2 * size(8000, "BF16") - 1) == {"a": "BF16", "b": "Q8_0"}


def test_the_model_that_saves_most_for_a_bit_is_lowered():
    models = {"small": model("small", 1000), "large": model("large", 70_000), "tiny": model("tiny", 100)}
    full = sum(size(each, "BF16") for each in (1000, 70_000, 100))
    assert chosen(models, full - 1) == {"small": "BF16", "large": "Q8_0", "tiny": "BF16"}


def test_a_set_that_does_not_fit_with_four_bits_leaves_its_last_models_out():
    budget = 2 * size(8000, "Q4_K_M")
    models = {**MODELS, "c": model("c", 8000)}
    fitted = fit_quants(models, {"host": budget})
    assert fitted.left_out == ("c",)
    assert {name: models[name][number].label for name, number in fitted.chosen.items()} == {
        "a": "Q4_K_M",
        "b": "Q4_K_M",
        "c": "Q8_0",
    }
    assert fitted.reasons["c"] == "it does not fit beside the others, and is loaded when it is asked for"


def test_what_is_left_out_fits_by_itself_beside_what_is_pinned():
    budget = 2 * size(8000, "Q4_K_M")
    models = {**MODELS, "c": model("c", 8000)}
    assert chosen(models, budget, pinned=["a"])["c"] == "Q4_K_M"


def test_less_than_four_bits_are_taken_only_where_a_model_fits_in_no_other_way():
    assert chosen({"a": model("a", 8000)}, size(8000, "Q2_K")) == {"a": "Q2_K"}
    assert chosen({"a": model("a", 8000)}, size(8000, "Q4_K_M")) == {"a": "Q4_K_M"}
    assert chosen({"a": model("a", 8000)}, 10) == {"a": "Q2_K"}


def test_a_model_of_one_type_counts_and_stays():
    models = {"fixed": model("fixed", 8000, ["Q8_0"]), "a": model("a", 8000)}
    assert chosen(models, size(8000, "Q8_0") + size(8000, "Q5_K_M")) == {"fixed": "Q8_0", "a": "Q5_K_M"}


def test_contexts_are_shortened_before_a_model_is_left_out():
    models = {"a": model("a", 8000, context=5000), "b": model("b", 8000, context=5000)}
    fitted = fit_quants(models, {"host": 2 * size(8000, "Q4_K_M")})
    assert fitted.left_out == ()
    assert fitted.reasons["a"] == "the set does not fit the memory with Q5_K_M"


def test_what_is_resident_already_counts():
    beside = [Footprint("old", 3000, 0)]
    assert chosen({"a": model("a", 8000)}, 3000 + size(8000, "Q6_K"), beside=beside) == {"a": "Q6_K"}


def test_a_device_with_fewer_bits_is_preferred_to_a_slow_host():
    def somewhere(label):
        weights = int(8000 * BITS[label] / 8)
        share = DeviceShare("CUDA0", label, weights, 0)
        on_gpu = Footprint(label, 0, 0, devices=(share,), placement=Placement(devices=("CUDA0",)), token_s=0.01)
        return QuantOption(label, BITS[label], (on_gpu, Footprint(label, weights, 0, placement=ON_HOST, token_s=0.1)))

    models = {"a": [somewhere(label) for label in BITS]}
    budgets = {"host": 10**9, "CUDA0": int(8000 * BITS["Q5_K_M"] / 8)}
    assert models["a"][fit_quants(models, budgets).chosen["a"]].label == "Q5_K_M"
    # With less than four bits it would fit the device; the host has all of them.
    budgets["CUDA0"] = int(8000 * BITS["Q2_K"] / 8)
    assert models["a"][fit_quants(models, budgets).chosen["a"]].label == "BF16"


@pytest.mark.parametrize("part", [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_the_choice_loses_little_to_the_best_of_all_choices(part):
    """Bits per weight over all weights, against every combination that fits."""
    parameters = {"a": 8000, "b": 3000, "c": 1500}
    labels = [label for label in BITS if BITS[label] >= 4]
    models = {name: model(name, count, labels) for name, count in parameters.items()}
    budget = int(part * sum(size(count, "BF16") for count in parameters.values()))

    def bits_of(numbers):
        return sum(parameters[name] * models[name][number].bits for name, number in zip(models, numbers, strict=True))

    def fits(numbers):
        return sum(models[n][i].choices[0].host_bytes for n, i in zip(models, numbers, strict=True)) <= budget

    every = itertools.product(range(len(labels)), repeat=len(models))
    best = max((bits_of(numbers) for numbers in every if fits(numbers)), default=None)
    numbers = fit_quants(models, {"host": budget}).chosen.values()
    if best is None:
        assert max(numbers) == len(labels) - 1
    else:
        assert fits(numbers)
        assert bits_of(numbers) >= 0.75 * best


def test_the_reason_of_a_single_model_names_no_others():
    def reason(budget):
        return fit_quants({"a": model("a", 8000)}, {"host": budget}).reasons["a"]

    assert reason(size(8000, "BF16")) == "the best there is"
    assert reason(size(8000, "Q8_0")) == "it does not fit the memory with BF16"
    assert reason(size(8000, "Q2_K")) == "it does not fit the memory with Q3_K_M"
