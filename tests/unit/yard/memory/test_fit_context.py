"""Contexts that fit themselves: how long they become, and why."""

from dataclasses import replace

import pytest

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.fit_context import ContextRange, fit_alone, fit_together
from modelyard.yard.memory.footprint import DeviceShare, Footprint

TOKEN = 1000
ON_GPU = Placement(devices=("CUDA0",))


def on_host(name, weights, token=TOKEN):
    return lambda length: [Footprint(name, weights, length * token, placement=ON_HOST)]


def somewhere(name, weights, token=TOKEN):
    """Whole on a device, else on the host."""

    def footprints(length):
        share = DeviceShare("CUDA0", name, weights, length * token)
        return [
            Footprint(name, 0, 0, devices=(share,), placement=ON_GPU, token_s=0.01),
            Footprint(name, weights, length * token, placement=ON_HOST, token_s=0.1),
        ]

    return footprints


def model(name="a", longest=131_072, shortest=4096, weights=1_000_000, placed=on_host, **more):
    return ContextRange(longest, shortest, placed(name, weights, **more), "all of it")


def room(*tokens, weights=1_000_000):
    """A budget of the host for models with so many tokens, over what stays spare."""
    return {"host": int(sum(weights + each * TOKEN for each in tokens) / 0.97) + 1}


def lengths(chosen):
    return {name: each.length for name, each in chosen.items()}


def test_a_model_gets_all_that_it_was_trained_on_where_that_fits():
    exact = {"host": 1_000_000 + 131_072 * TOKEN}
    chosen = fit_together({"a": model()}, exact)["a"]
    assert (chosen.length, chosen.reason, chosen.is_shortened) == (131_072, "all of it", False)


def test_a_shortened_context_is_the_largest_multiple_of_1024_that_fits_with_some_memory_to_spare():
    chosen = fit_together({"a": model()}, room(20_480))["a"]
    assert (chosen.length, chosen.is_shortened) == (20_480, True)
    assert chosen.reason == "shortened from 131,072, so that it fits the memory"
    assert fit_together({"a": model()}, room(20_479))["a"].length == 19_456


def test_models_that_are_wanted_together_have_one_common_limit():
    models = {"a": model("a"), "b": model("b", longest=32_768), "c": model("c", longest=8192)}
    chosen = fit_together(models, room(20_480, 20_480, 8192))
    assert lengths(chosen) == {"a": 20_480, "b": 20_480, "c": 8192}
    assert chosen["b"].reason == (
        "shortened from 32,768, so that the models that are loaded at the start fit the memory"
    )
    assert chosen["c"].reason == "all of it"


def test_a_number_stays_and_counts():
    models = {"a": model("a"), "fixed": model("b", longest=50_000, shortest=50_000)}
    assert lengths(fit_together(models, room(10_240, 50_000))) == {"a": 10_240, "fixed": 50_000}


def test_no_context_is_shortened_below_4096():
    chosen = fit_together({"a": model()}, {"host": 1_000_000 + 4096 * TOKEN})["a"]
    assert chosen.length == 4096
    chosen = fit_together({"a": model()}, {"host": 1_000_000 + 4095 * TOKEN})["a"]
    assert chosen.length == 4096
    assert chosen.reason == "shortened from 131,072 as far as it may be, and does not fit the memory even so"


def test_a_model_that_is_trained_on_less_keeps_what_it_has():
    assert fit_alone(model(longest=2048, shortest=2048), {"host": 0}).length == 2048


def test_a_model_without_room_beside_the_others_is_fitted_by_itself_beside_what_is_pinned():
    models = {"a": model("a"), "big": model("b", weights=33_000_000), "c": model("c")}
    budget = {"host": 40_000_000}
    assert lengths(fit_together(models, budget)) == {"a": 17_408, "big": 5120, "c": 17_408}
    pinned = fit_together(models, budget, pinned=["a"])["big"]
    assert pinned.length == 4096
    assert pinned.reason.endswith("as far as it may be, and does not fit the memory even so")


def test_what_is_resident_already_counts():
    beside = [Footprint("old", 5_000_000, 0)]
    budget = {"host": room(20_480)["host"] + 6_000_000}
    assert fit_together({"a": model()}, budget, beside)["a"].length == 20_480


def test_weights_that_are_shared_count_once():
    models = {"a": model("same"), "b": model("same")}
    assert lengths(fit_together(models, {"host": int((1_000_000 + 2 * 10_240 * TOKEN) / 0.97) + 1})) == {
        "a": 10_240,
        "b": 10_240,
    }


def test_a_context_grows_only_as_far_as_its_model_stays_on_its_device():
    budgets = {"host": 10**12, "CUDA0": int((1_000_000 + 16_384 * TOKEN) / 0.97) + 1}
    chosen = fit_together({"a": model(placed=somewhere)}, budgets)["a"]
    assert chosen.length == 16_384
    assert chosen.reason == "shortened from 131,072, so that it fits the memory of CUDA0"


def test_a_model_that_is_too_large_for_a_device_has_the_hosts_memory():
    budgets = {"host": 10**12, "CUDA0": 1_000_000}
    assert fit_together({"a": model(placed=somewhere)}, budgets)["a"].length == 131_072


def test_models_share_devices_in_their_order():
    one = 1_000_000 + 4096 * TOKEN
    budgets = {"host": 1_000_000 + 4096 * TOKEN, "CUDA0": one + 10}
    models = {"a": model("a", placed=somewhere), "b": model("b", placed=somewhere), "c": model("c", placed=somewhere)}
    chosen = fit_together(models, budgets)
    assert lengths(chosen) == {"a": 4096, "b": 4096, "c": 4096}


def either(name, weights, token=TOKEN):
    """Whole on one of two devices, else on the host, which is as fast for so small a model."""

    def footprints(length):
        on_devices = [
            Footprint(
                name,
                0,
                0,
                devices=(DeviceShare(device, name, weights, length * token),),
                placement=Placement(devices=(device,)),
                token_s=0.01,
            )
            for device in ("CUDA0", "CUDA1")
        ]
        return [*on_devices, Footprint(name, weights, length * token, placement=ON_HOST, token_s=0.01)]

    return footprints


def test_no_context_is_shortened_while_another_device_is_empty():
    card = 1_000_000 + 20_480 * TOKEN
    models = {name: model(name, longest=20_480, placed=either) for name in ("a", "b")}
    chosen = fit_together(models, {"host": 10**12, "CUDA0": card, "CUDA1": card})
    assert lengths(chosen) == {"a": 20_480, "b": 20_480}
    assert [chosen[name].placement.devices for name in models] == [("CUDA0",), ("CUDA1",)]


def test_contexts_grow_over_all_devices_and_not_onto_the_host():
    card = int((1_000_000 + 16_384 * TOKEN) / 0.97) + 1
    models = {name: model(name, placed=either) for name in ("a", "b")}
    chosen = fit_together(models, {"host": 10**12, "CUDA0": card, "CUDA1": card})
    assert lengths(chosen) == {"a": 16_384, "b": 16_384}
    assert {chosen[name].placement.devices for name in models} == {("CUDA0",), ("CUDA1",)}
    one = fit_together(models, {"host": 10**12, "CUDA0": card, "CUDA1": 0})
    assert lengths(one)["a"] < 8192


def test_models_change_devices_where_their_contexts_can_grow_by_that():
    models = {
        "a": model("a", longest=4096, shortest=4096, placed=either),
        "b": model("b", longest=4096, shortest=4096, placed=either),
        "c": model("c", longest=40_960, placed=either),
    }
    two, long = 2 * (1_000_000 + 4096 * TOKEN), 1_000_000 + 40_960 * TOKEN
    chosen = fit_together(models, {"host": 0, "CUDA0": long, "CUDA1": two})
    assert lengths(chosen)["c"] == 40_960
    assert [chosen[name].placement.devices for name in models] == [("CUDA1",), ("CUDA1",), ("CUDA0",)]


@pytest.mark.parametrize("budget", range(3_000_000, 160_000_000, 7_777_777))
def test_more_memory_never_shortens_a_context(budget):
    models = {"a": model("a"), "b": model("b", longest=16_384)}
    less = fit_together(models, {"host": budget})
    more = fit_together(models, {"host": budget + 1_000_000})
    assert all(less[name].length <= more[name].length for name in models)


def test_a_set_of_numbers_is_not_even_predicted():
    def never(length):
        raise AssertionError(length)

    fixed = replace(model(longest=512, shortest=512), footprints=never)
    assert fit_together({"a": fixed}, {"host": 1})["a"].length == 512
    assert fit_alone(fixed, {"host": 1}).length == 512


def test_trials_count_only_where_contexts_of_several_models_are_shortened():
    models = {name: replace(model(name, longest=20_480), trial_bytes=5_000_000) for name in ("a", "b")}
    whole = {"host": 2 * (1_000_000 + 20_480 * TOKEN)}
    assert lengths(fit_together(models, whole)) == {"a": 20_480, "b": 20_480}
    less = {"host": int((2 * (6_000_000 + 10_240 * TOKEN)) / 0.97) + 1}
    assert lengths(fit_together(models, less)) == {"a": 10_240, "b": 10_240}
    assert fit_alone(models["a"], room(10_240)).length == 10_240
