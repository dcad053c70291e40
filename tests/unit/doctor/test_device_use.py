"""What a configuration leaves unused of accelerators, and what it promises of them that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.doctor.device_use import check_device_use, unused_devices
from modelyard.doctor.llama import LlamaFacts

GB = 1_000_000_000
NAMES = ("CUDA0", "CUDA1")
LLAMA = LlamaFacts(
    version="0.5.0",
    devices=tuple({"name": name, "kind": "gpu", "free_bytes": 20 * GB, "total_bytes": 24 * GB} for name in NAMES),
    accelerators=NAMES,
)


def configured(*devices: dict[str, Any]) -> Config:
    models = [
        {"model_id": "m.gguf", "alias": f"m{number}", "device": device, "load": "on-demand"}
        for number, device in enumerate(devices)
    ]
    return validate_config({"models": models}, source="test", base=Path("/")) if models else Config()


@pytest.mark.parametrize(
    ("devices", "unused"),
    [
        ([], ()),
        ([{}], ()),
        ([{"devices": ["cuda0"]}], ("CUDA1",)),
        ([{"devices": ["CUDA0"]}, {}], ()),
        ([{"devices": ["CUDA0"]}, {"devices": ["CUDA1"]}], ()),
        ([{"n_gpu_layers": 0}], NAMES),
        ([{"n_gpu_layers": 5}], ()),
        ([{"cpu": True}, {}], NAMES),
        ([{"device_layers": 20}], ("CUDA1",)),
        ([{"device_layers": ["1:20"]}], ("CUDA0",)),
        ([{"tensor_split": [0, 1]}], ("CUDA0",)),
        ([{"tensor_split": [3, 1]}], ()),
        ([{"split_mode": "none"}], ("CUDA1",)),
        ([{"split_mode": "none", "main_gpu": 1}], ("CUDA0",)),
        ([{"devices": ["CUDA1", "CUDA0"], "split_mode": "none"}], ("CUDA0",)),
        ([{"devices": ["CUDA0"], "tensor_overrides": ["output=CUDA0"]}], ("CUDA1",)),
        ([{"device_layers": 20, "tensor_overrides": ["output=CUDA1"]}], ()),
    ],
)
def test_devices_that_no_model_may_use_are_found(devices: list[dict[str, Any]], unused: tuple[str, ...]) -> None:
    assert unused_devices(configured(*devices), NAMES) == unused


def test_a_machine_without_accelerators_leaves_none_unused() -> None:
    assert unused_devices(configured({"cpu": True}), ()) == ()


def test_unused_devices_are_a_note_and_used_ones_are_nothing() -> None:
    (found,) = check_device_use(LLAMA, NAMES, ())
    assert (found.name, found.verdict, found.value) == (
        "unused_devices",
        "note",
        "no model may use CUDA0 and CUDA1",
    )
    assert "devices" in found.advice
    assert list(check_device_use(LLAMA, (), ())) == []


def test_a_budget_larger_than_its_device_is_a_note() -> None:
    (found,) = check_device_use(LLAMA, (), [("cuda1", 30 * GB)])
    assert (found.name, found.verdict) == ("budget_above_device", "note")
    assert found.value == "the budget of CUDA1 is 30.0 GB, and it has 24.0 GB in all"
    assert found.facts == {"device": "CUDA1", "budget_bytes": 30 * GB, "total_bytes": 24 * GB}
    (by_number,) = check_device_use(LLAMA, (), [("0", 25 * GB)])
    assert by_number.facts["device"] == "CUDA0"


def test_budgets_that_a_device_has_are_no_note() -> None:
    assert list(check_device_use(LLAMA, (), [("CUDA0", 24 * GB), ("1", 1.0)])) == []


def test_a_device_that_does_not_tell_its_size_may_have_any_budget() -> None:
    silent = LlamaFacts(devices=({"name": "RPC0", "free_bytes": 0, "total_bytes": 0},), accelerators=("RPC0",))
    assert list(check_device_use(silent, (), [("RPC0", GB)])) == []


def test_a_budget_of_a_device_that_is_not_there_is_a_note() -> None:
    (found,) = check_device_use(LLAMA, (), [("CUDA7", GB)])
    assert found.name == "budget_of_unknown_device"
    assert "'CUDA7'" in found.value
    assert list(check_device_use(LlamaFacts("It cannot be loaded"), (), [("CUDA7", GB)])) == []
