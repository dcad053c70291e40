"""Which devices a placement means on a machine."""

import pytest

from modelyard.engine.placing import LlamaDevice, divided_by_free_memory, host_experts, overrides_of, resolve
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import ON_HOST, Placement

CPU = LlamaDevice("CPU", "", "cpu", 64, 64, "CPU")
FIRST = LlamaDevice("CUDA0", "", "gpu", 3 << 30, 4 << 30, "CUDA", "a")
SECOND = LlamaDevice("CUDA1", "", "gpu", 1 << 30, 4 << 30, "CUDA", "b")
BOTH = (FIRST, SECOND, CPU)


def test_a_model_is_on_all_accelerators_unless_it_is_said_otherwise():
    assert resolve(Placement(), BOTH).devices == ("CUDA0", "CUDA1")


def test_without_accelerators_a_model_is_on_the_host():
    assert resolve(Placement(mlock=True), (CPU,)) == Placement(devices=(), mlock=True)


def test_a_model_for_the_host_does_not_look_for_devices():
    assert resolve(ON_HOST, ()) == ON_HOST


def test_without_layers_on_devices_a_model_is_on_the_host():
    assert resolve(Placement(gpu_layers=0), BOTH) == ON_HOST


def test_names_are_those_of_llama_cpp_however_they_are_written():
    assert resolve(Placement(devices=("cuda1",)), BOTH).devices == ("CUDA1",)


def test_an_unknown_device_is_refused_with_those_that_exist():
    with pytest.raises(UnusableModel, match=r"'CUDA7', which does not exist\. There are: 0 \(CUDA0\), 1 \(CUDA1\)\."):
        resolve(Placement(devices=("CUDA7",)), BOTH)
    with pytest.raises(UnusableModel, match=r"tensor_overrides names the device 'Vulkan0'"):
        resolve(Placement(tensor_overrides=(("exps", "Vulkan0"),)), BOTH)


def test_layers_without_an_accelerator_are_refused_with_what_to_do():
    with pytest.raises(UnusableModel, match=r"gives 5 layers to accelerators\. Buy one\."):
        resolve(Placement(gpu_layers=5, split=(5.0,)), (CPU,), lambda: "Buy one.")


def test_layers_for_a_device_that_is_not_there_are_refused():
    with pytest.raises(UnusableModel, match=r"layers to device 2, but there are 2: 0 \(CUDA0\), 1 \(CUDA1\)\."):
        resolve(Placement(gpu_layers=9, split=(3.0, 3.0, 3.0)), BOTH)
    resolve(Placement(gpu_layers=3, split=(3.0, 0.0, 0.0)), BOTH)


def test_a_main_device_that_is_not_there_is_refused():
    with pytest.raises(UnusableModel, match="main_gpu is 4"):
        resolve(Placement(split_mode="none", main_device=4), BOTH)


def test_free_memory_divides_a_model_where_nothing_else_does():
    placement = resolve(Placement(), BOTH)
    assert divided_by_free_memory(placement, BOTH).split == (3072.0, 1024.0)
    given = Placement(devices=("CUDA0", "CUDA1"), split=(1.0, 1.0))
    assert divided_by_free_memory(given, BOTH) == given
    assert divided_by_free_memory(Placement(devices=("CUDA0",)), BOTH).split == ()


def test_tensors_with_places_of_their_own_come_before_experts():
    assert overrides_of(Placement(cpu_moe_layers=2, tensor_overrides=(("a", "CUDA0"),))) == (
        ("a", "CUDA0"),
        (host_experts(2), "host"),
    )
    assert overrides_of(ON_HOST) == ()


@pytest.mark.parametrize(
    ("placement", "is_on_devices"),
    [
        (Placement(("CUDA0",)), True),
        (Placement(("CUDA0",), gpu_layers=31), True),
        (Placement(("CUDA0",), gpu_layers=30), False),
        (Placement(("CUDA0",), cpu_moe_layers=1), False),
        (Placement(("CUDA0",), kv_on_host=True), False),
        (Placement(("CUDA0", "CUDA1"), tensor_overrides=(("ffn", "CUDA1"),)), True),
        (Placement(("CUDA0",), tensor_overrides=(("ffn", "host"),)), False),
        (ON_HOST, False),
    ],
)
def test_the_processor_computes_what_is_not_on_devices(placement: Placement, is_on_devices: bool):
    assert placement.is_on_devices(layers=30) is is_on_devices
