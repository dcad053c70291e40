"""How a placement reaches llama.cpp, and why there may be no device for it."""

import pytest

from modelyard.engine.llama import placing, resolve_here
from modelyard.engine.llama.backends import MissingBackend
from modelyard.engine.llama.library import lib
from modelyard.engine.llama.placing import set_placement
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import ON_HOST, Placement


@pytest.fixture
def on_machine(monkeypatch):
    """Replace the devices of this machine, and record whether they were asked for their memory."""
    asked = []

    def having(*found):
        def devices(*, with_memory=True):
            asked.append(with_memory)
            return found

        monkeypatch.setattr(placing, "devices", devices)
        return asked

    return having


def test_layers_for_an_accelerator_that_llama_cpp_was_not_built_for_are_refused_with_what_to_do(on_machine):
    on_machine()
    with pytest.raises(UnusableModel, match=r"gives 5 layers to accelerators\. .*CPU alone.*doctor"):
        resolve_here(Placement(gpu_layers=5))


def test_devices_are_asked_for_their_memory_only_where_two_backends_may_drive_one(on_machine):
    cuda, vulkan = (LlamaDevice(f"{name}0", "", "gpu", 0, 0, name, "a") for name in ("CUDA", "Vulkan"))
    assert on_machine(cuda) == []
    assert resolve_here(Placement()).devices == ("CUDA0",)
    asked = on_machine(cuda, vulkan)
    assert resolve_here(Placement()).devices == ("CUDA0",)
    assert asked == [False, False, True]


def test_layers_for_an_accelerator_whose_library_is_missing_are_refused_with_the_reason(monkeypatch):
    missing = MissingBackend("cuda", "libcuda.so.1: cannot open shared object file")
    monkeypatch.setattr(placing, "missing_backends", lambda: (missing,))
    with pytest.raises(UnusableModel, match=r"built for cuda, .* cannot be loaded \(libcuda\.so\.1"):
        resolve_here(Placement(gpu_layers=7))


def test_layers_for_a_device_without_its_driver_are_refused(monkeypatch):
    monkeypatch.setattr(placing, "backends", lambda: ("CUDA", "CPU"))
    with pytest.raises(UnusableModel, match=r"gives 7 layers .* built for some, but sees none"):
        resolve_here(Placement(gpu_layers=7))


def test_a_model_on_the_host_gets_an_empty_list_of_devices_so_that_it_touches_none():
    params = lib.llama_model_default_params()
    kept = set_placement(params, ON_HOST)
    assert params.devices
    assert list(kept[0]) == [None]
    assert params.n_gpu_layers == 0


@pytest.mark.parametrize(
    ("placement", "mode"),
    [
        (Placement(devices=()), "AUTO"),
        (Placement(devices=(), mmap=True), "MMAP"),
        (Placement(devices=(), mmap=False), "NONE"),
        (Placement(devices=(), mlock=True), "MMAP_MLOCK"),
    ],
)
def test_files_are_mapped_and_locked_as_configured(placement, mode):
    params = lib.llama_model_default_params()
    set_placement(params, placement)
    assert params.load_mode == getattr(lib, f"LLAMA_LOAD_MODE_{mode}")
