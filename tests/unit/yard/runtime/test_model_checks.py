"""Models that are put on devices which do not exist, or whose memory has another name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelyard.config import validate_config
from modelyard.yard.runtime.model_checks import misplaced
from modelyard.yard.runtime.model_spec import ModelSpec
from support.scripted_devices import CPU, FIRST, SECOND

CUDA = replace(FIRST, hardware_id="0000:01:00.0")
VULKAN = replace(CUDA, name="Vulkan0", backend="Vulkan")
INTEGRATED = replace(SECOND, name="Vulkan1", kind="igpu", backend="Vulkan", hardware_id="0000:00:02.0")


def problems(**device: Any) -> list[str]:
    config = validate_config({"models": [{"model_id": "org/a", "device": device}]})
    return misplaced([ModelSpec(config, config.models[0])], (CPU, CUDA, VULKAN, INTEGRATED))


def test_devices_with_a_pool_and_those_in_the_memory_of_the_machine_may_be_named() -> None:
    assert problems() == []
    assert problems(devices=["CUDA0"]) == []
    assert problems(devices=["Vulkan1"]) == []


def test_a_device_that_does_not_exist_is_named() -> None:
    (problem,) = problems(devices=["CUDA7"])
    assert "'CUDA7', which does not exist" in problem


def test_the_second_name_of_a_device_has_no_budget() -> None:
    (problem,) = problems(devices=["vulkan0"])
    assert problem.startswith("model 'org/a': devices names Vulkan0, which is the same hardware as CUDA0")
    assert problem.endswith("Write CUDA0.")
