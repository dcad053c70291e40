"""Which keys of ``[models.device]`` contradict each other."""

import pytest

from modelyard.config import device_rules, validate_config
from modelyard.config.model import Model
from modelyard.errors import ConfigError


def model(name="b", **device):
    return Model.model_validate({"model_id": name, "device": device})


def faults(**device):
    return [str(problem) for problem in device_rules.bad_placements({1: model(**device)})]


def on_cpu(*models):
    return [str(problem) for problem in device_rules.devices_without_use(dict(enumerate(models, 1)))]


def test_cpu_cannot_be_both_true_and_false():
    models = {1: model("on", cpu=True), 2: model("unset"), 3: model("off", cpu=False)}
    assert [str(problem) for problem in device_rules.mixed_cpu(models)] == [
        "cpu must be the same in every [models.device] that sets it: it is true in [[models]] 1 ('on') and false in "
        "[[models]] 3 ('off')."
    ]
    assert device_rules.mixed_cpu({1: models[1], 2: models[2]}) == []


def test_layers_cannot_go_to_a_device_that_cpu_forbids():
    assert on_cpu(model(device_layers=20), model("unset")) == []
    assert on_cpu(model(device_layers=0, cpu=True)) == []
    assert on_cpu(model(device_layers=["1:4"], cpu=True)) == [
        "[models.device] of model 1 ('b'): device_layers gives layers to an accelerator, and cpu = true "
        "([[models]] 1 ('b')) keeps all models on the CPU. Keep one of them."
    ]
    (neighbour,) = on_cpu(model("cpu", cpu=True), model(device_layers=20))
    assert "cpu = true ([[models]] 1 ('cpu'))" in neighbour


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("devices", ["CUDA0"]),
        ("n_gpu_layers", 3),
        ("tensor_split", [1, 2]),
        ("split_mode", "row"),
        ("main_gpu", 0),
        ("tensor_overrides", ["exps=CUDA0"]),
    ],
)
def test_whatever_uses_a_device_contradicts_cpu(key, value):
    (problem,) = on_cpu(model(**{key: value, "cpu": True}))
    assert problem.startswith(f"[models.device] of model 1 ('b'): {key} ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_gpu_layers", 0), ("tensor_overrides", ["exps=host"]), ("n_cpu_moe", 4), ("mlock", True), ("mmap", False)],
)
def test_what_concerns_the_host_goes_with_cpu(key, value):
    assert on_cpu(model(**{key: value, "cpu": True})) == []


def test_keys_that_fit_each_other_are_no_fault():
    assert faults(devices=["CUDA0", "CUDA1"], tensor_split=[3, 1], n_gpu_layers=20, split_mode="row", main_gpu=1) == []
    assert faults(devices=["CUDA0", "CUDA1"], device_layers=["0:3", "1:4"]) == []
    assert faults(tensor_overrides=["blk[.]\\d+[.]ffn_(up|down)_exps=host", "output=CPU"], mlock=True) == []
    assert faults(split_mode="none", main_gpu=2, mmap=False) == []


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"device_layers": 3, "n_gpu_layers": 4}, "device_layers and n_gpu_layers exclude each other."),
        ({"device_layers": 3, "tensor_split": [1, 1]}, "device_layers and tensor_split exclude each other."),
        ({"device_layers": ["2:3"], "devices": ["A", "B"]}, "device_layers gives layers to device 2, and devices "),
        ({"device_layers": ["0:3", "1:3"], "split_mode": "none"}, "device_layers divides the model"),
        ({"tensor_split": [1]}, "tensor_split needs a part for each of several devices"),
        ({"tensor_split": [0, 0]}, "tensor_split needs a part for each of several devices"),
        ({"tensor_split": [1, 1], "devices": ["A"]}, "tensor_split has 2 parts, and devices names 1."),
        ({"tensor_split": [1, 1], "split_mode": "none"}, "tensor_split divides the model"),
        ({"tensor_split": [1, 1], "n_gpu_layers": 0}, "tensor_split divides the layers on devices"),
        ({"main_gpu": 0}, "main_gpu needs split_mode"),
        ({"main_gpu": 2, "split_mode": "row", "devices": ["A", "B"]}, "main_gpu is 2, and devices names 2."),
        ({"devices": []}, "devices names no accelerator. For the CPU alone, write cpu = true; to use all"),
        ({"devices": ["CUDA0", "cuda0"]}, "devices names a device twice."),
        ({"devices": ["CPU"]}, "devices names accelerators. For the CPU alone, write cpu = true."),
        ({"mlock": True, "mmap": False}, "mlock locks mapped files in memory, and mmap = false maps none."),
        ({"tensor_overrides": ["blk[=host"]}, "tensor_overrides: 'blk[' is no regular expression"),
        ({"tensor_overrides": ["(?i)exps=host"]}, "tensor_overrides: '(?i)exps' is no regular expression"),
        ({"tensor_overrides": ["exps=CUDA7"], "devices": ["CUDA0"]}, "tensor_overrides puts 'exps' on 'CUDA7', which "),
    ],
)
def test_what_contradicts_is_refused_with_its_place(device, message):
    with pytest.raises(ConfigError) as refused:
        validate_config({"models": [{"model_id": "b", "device": device}]})
    (problem,) = refused.value.problems
    assert str(problem).startswith(f"[models.device] of model 1 ('b'): {message}")
    assert problem.location[:3] == ("models", 0, "device")
    assert problem.location[3] in device


@pytest.mark.parametrize("written", ["exps=host", ["exps"], ["=host"], ["exps="], [3], ["x" * 300 + "=host"]])
def test_overrides_are_patterns_with_places(written):
    with pytest.raises(ConfigError, match=r'tensor_overrides must be a list of "PATTERN=PLACE"'):
        validate_config({"models": [{"model_id": "b", "device": {"tensor_overrides": written}}]})


def test_a_pattern_may_contain_an_equals_sign():
    assert model(tensor_overrides=["a=b=host"]).device.tensor_overrides == (("a=b", "host"),)
