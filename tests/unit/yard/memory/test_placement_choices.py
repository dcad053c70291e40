"""Which placements a model may have: pure, so no device is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard.engine.placing import LlamaDevice
from modelyard.protocol.placement import ANYWHERE, ON_HOST, Placement
from modelyard.yard.memory.placement_choices import MAX_CHOICES, placement_choices

LAYERS = 31


def devices(*sizes: int) -> list[LlamaDevice]:
    return [LlamaDevice(f"CUDA{number}", "", "gpu", 0, size, "CUDA") for number, size in enumerate(sizes)]


def choices(
    *sizes: int, has_experts: bool = False, is_divisible: bool = True, **configured: object
) -> tuple[Placement, ...]:
    listed = devices(*sizes)
    placement = replace(ANYWHERE, devices=tuple(device.name for device in listed))
    placement = replace(placement, **configured)  # type: ignore[arg-type]
    return placement_choices(placement, listed, layers=LAYERS, has_experts=has_experts, is_divisible=is_divisible)


def test_without_devices_there_is_one_placement() -> None:
    assert placement_choices(ON_HOST, (), layers=LAYERS, has_experts=True) == (ON_HOST,)


def test_one_device_has_the_whole_model_or_eighths_of_it_or_nothing() -> None:
    found = choices(24)
    assert found[0] == Placement(devices=("CUDA0",))
    assert {each.gpu_layers for each in found[1:-1]} == {4, 8, 12, 16, 20, 24, 28}
    assert found[-1] == ON_HOST


def test_experts_are_left_on_the_host_in_four_steps() -> None:
    found = choices(24, has_experts=True)
    assert sorted(each.cpu_moe_layers for each in found if each.cpu_moe_layers) == [7, 15, 23, 31]


def test_a_number_of_layers_with_experts_on_the_host_means_nothing_for_a_model_without_any() -> None:
    assert choices(24, cpu_moe_layers=3) == choices(24)
    assert len(choices(24, cpu_moe_layers=3, has_experts=True)) == 1


def test_devices_share_whole_layers_by_their_memory_and_in_uneven_parts() -> None:
    found = choices(24, 8)
    both = [each for each in found if each.split and each.gpu_layers is None]
    assert [each.split for each in both] == [(24.0, 8.0), (9.0, 23.0)]
    assert all(sum(each.split) == (each.gpu_layers or LAYERS + 1) for each in found if each.split)
    assert all(min(each.split) >= 1 for each in found if each.split)


def test_devices_that_do_not_tell_their_memory_share_evenly() -> None:
    assert Placement(devices=("CUDA0", "CUDA1"), split=(16.0, 16.0)) in choices(0, 0)


@pytest.mark.parametrize("count", range(1, 9))
def test_there_are_a_few_choices_for_any_number_of_devices(count: int) -> None:
    found = choices(*[24] * count, has_experts=True)
    assert len(found) == len(set(found)) <= MAX_CHOICES
    assert found[-1] == ON_HOST
    assert all(any(each.devices == (f"CUDA{number}",) for each in found) for number in range(count))
    assert any(len(each.devices or ()) == count for each in found)


def test_a_model_that_cannot_be_divided_is_whole_on_a_device_or_on_the_host() -> None:
    assert choices(24, 8, is_divisible=False) == (
        Placement(devices=("CUDA0",)),
        Placement(devices=("CUDA1",)),
        ON_HOST,
    )


def test_named_devices_are_the_only_ones() -> None:
    found = choices(24, 8, devices=("CUDA1",))
    assert {each.devices for each in found} == {("CUDA1",), ()}


@pytest.mark.parametrize(
    "parts", [{"gpu_layers": 20}, {"cpu_moe_layers": 9}, {"tensor_overrides": (("exps", "host"),)}]
)
def test_the_part_that_is_configured_stays_wherever_the_model_is_and_the_host_alone_is_no_choice(
    parts: dict[str, object],
) -> None:
    found = choices(24, 8, has_experts=True, **parts)
    assert [each.devices for each in found][:3] == [("CUDA0",), ("CUDA1",), ("CUDA0", "CUDA1")]
    for each in found:
        assert {name: getattr(each, name) for name in parts} == parts


@pytest.mark.parametrize(
    ("division", "split"),
    [
        ({"split": (1.0, 3.0)}, (1.0, 3.0)),
        ({"split": (0.0, 20.0), "gpu_layers": 20}, (0.0, 20.0)),
        ({"split_mode": "row"}, (24.0, 8.0)),
        ({"split_mode": "none", "main_device": 1}, ()),
        ({"main_device": 1}, (24.0, 8.0)),
        ({"tensor_overrides": (("exps", "CUDA1"),)}, (24.0, 8.0)),
    ],
)
def test_a_division_that_is_configured_is_the_only_placement(
    division: dict[str, object], split: tuple[float, ...]
) -> None:
    (only,) = choices(24, 8, has_experts=True, **division)
    assert only.devices == ("CUDA0", "CUDA1")
    assert only.split == split
    for name in division.keys() - {"split"}:
        assert getattr(only, name) == division[name]


def test_locks_and_maps_and_the_place_of_the_cache_are_kept_and_leave_the_host_as_the_last_choice() -> None:
    found = choices(24, mlock=True, mmap=True, kv_on_host=True)
    assert all(each.mlock and each.mmap for each in found)
    assert all(each.kv_on_host for each in found[:-1])
    assert found[-1] == replace(ON_HOST, mlock=True, mmap=True)


def test_few_layers_are_not_divided_over_more_devices_than_there_are() -> None:
    names = tuple(device.name for device in devices(8, 8, 8))
    found = placement_choices(Placement(devices=names), devices(8, 8, 8), layers=2, has_experts=False)
    assert all(min(each.split) >= 1 for each in found if each.split)
    (only,) = placement_choices(
        Placement(devices=names, split_mode="row", gpu_layers=2), devices(8, 8, 8), layers=2, has_experts=False
    )
    assert sum(only.split) == 2
