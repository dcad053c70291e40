"""Where ``[models.device]`` puts a model."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.engine.placing import LlamaDevice
from modelyard.protocol.placement import ANYWHERE, ON_HOST, Placement
from modelyard.yard.runtime.placements import may_be_remote, may_use_devices, needs_devices, placement_of


def placed(**device: Any) -> Placement:
    config = validate_config({"models": [{"model_id": "org/a", "device": device}]})
    return placement_of(config, config.models[0])


@pytest.mark.parametrize(
    ("device", "placement"),
    [
        ({}, ANYWHERE),
        ({"cpu": True}, ON_HOST),
        ({"cpu": True, "mlock": True}, Placement(devices=(), mlock=True)),
        ({"n_gpu_layers": 0}, Placement(gpu_layers=0)),
        ({"device_layers": 20}, Placement(gpu_layers=20, split=(20.0,))),
        ({"device_layers": ["0:20", "2:5"]}, Placement(gpu_layers=25, split=(20.0, 0.0, 5.0))),
        (
            {"devices": ["CUDA1", "CUDA0"], "tensor_split": [3, 1], "split_mode": "row", "main_gpu": 1},
            Placement(devices=("CUDA1", "CUDA0"), split=(3.0, 1.0), split_mode="row", main_device=1),
        ),
        (
            {"n_cpu_moe": 3, "tensor_overrides": ["exps=CPU"], "kv_on_host": True, "mmap": False},
            Placement(cpu_moe_layers=3, tensor_overrides=(("exps", "host"),), kv_on_host=True, mmap=False),
        ),
    ],
)
def test_a_model_is_put_where_its_table_says(device: dict[str, Any], placement: Placement) -> None:
    assert placed(**device) == placement


def test_cpu_of_one_model_keeps_all_on_the_host() -> None:
    config = validate_config({"models": [{"model_id": "org/a"}, {"model_id": "org/b", "device": {"cpu": True}}]})
    assert placement_of(config, config.models[0]) == ON_HOST


@pytest.mark.parametrize(
    ("device", "needs"),
    [
        ({}, False),
        ({"cpu": True}, False),
        ({"n_gpu_layers": 0}, False),
        ({"n_cpu_moe": 4}, False),
        ({"tensor_overrides": ["exps=host"]}, False),
        ({"n_gpu_layers": 1}, True),
        ({"device_layers": 1}, True),
        ({"devices": ["CUDA0"]}, True),
        ({"tensor_split": [1, 1]}, True),
        ({"tensor_overrides": ["exps=CUDA0"]}, True),
    ],
)
def test_only_what_cannot_be_without_devices_is_checked_at_the_start(device: dict[str, Any], needs: bool) -> None:
    assert needs_devices(placed(**device)) is needs


@pytest.mark.parametrize(
    ("device", "may"),
    [
        ({}, True),
        ({"devices": ["CUDA1"]}, True),
        ({"n_cpu_moe": 3}, True),
        ({"cpu": True}, False),
        ({"n_gpu_layers": 0}, False),
        ({"n_gpu_layers": 0, "tensor_overrides": ["exps=CUDA0"]}, True),
    ],
)
def test_models_that_may_use_devices_are_known_by_their_table(device: dict[str, Any], may: bool) -> None:
    assert may_use_devices(placed(**device)) is may


@pytest.mark.parametrize(
    ("device", "may"),
    [
        ({}, True),
        ({"devices": ["CUDA0"]}, False),
        ({"devices": ["CUDA0", "rpc0"]}, True),
        ({"n_gpu_layers": 0}, False),
        ({"cpu": True}, False),
    ],
)
def test_models_that_may_be_on_another_machine_are_known_by_their_devices(device: dict[str, Any], may: bool) -> None:
    found = [
        LlamaDevice("RPC0", "", "gpu", 1, 1, "RPC"),
        LlamaDevice("CUDA0", "", "gpu", 1, 1, "CUDA"),
        LlamaDevice("CPU", "", "cpu", 1, 1, "CPU"),
    ]
    assert may_be_remote(placed(**device), found) is may
    assert not may_be_remote(placed(**device), found[1:])
