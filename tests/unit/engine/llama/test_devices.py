"""What llama.cpp says of the machine. Most devices here are made up; see tests/integration/test_devices.py."""

from modelyard.engine.llama import devices
from modelyard.engine.llama.devices import parse_features
from modelyard.engine.placing import LlamaDevice, accelerators


def device(name, kind="gpu", *, hardware="", free=0):
    return LlamaDevice(name, "", kind, free, free, name.rstrip("0123456789"), hardware)


def test_the_processor_is_a_device_with_memory():
    (cpu,) = (found for found in devices() if found.kind == "cpu")
    assert cpu.total_bytes > 0


def test_devices_can_be_listed_without_asking_them_for_their_memory():
    assert [found.name for found in devices(with_memory=False)] == [found.name for found in devices()]


def test_features_are_those_that_are_on():
    line = "CUDA : ARCHS = 890 | CPU : SSE3 = 1 | AVX512 = 0 | AVX2 = 1 | "
    assert parse_features(line) == ("SSE3", "AVX2")
    assert parse_features("") == ()


def test_an_integrated_accelerator_counts_where_there_is_no_other():
    cpu, gpu, igpu = device("CPU", "cpu"), device("CUDA0"), device("Vulkan0", "igpu")
    assert accelerators([cpu, igpu, gpu]) == (gpu,)
    assert accelerators([cpu, igpu]) == (igpu,)
    assert accelerators([cpu]) == ()


def test_devices_of_other_processes_come_first_and_hide_no_integrated_one():
    gpu, remote, igpu = device("CUDA0"), device("RPC0"), device("Vulkan0", "igpu")
    assert accelerators([gpu, remote]) == (remote, gpu)
    assert accelerators([igpu, remote]) == (remote, igpu)


def test_a_device_that_two_backends_drive_counts_once():
    cuda, vulkan = device("CUDA0", hardware="0000:c1:00.0"), device("Vulkan0", hardware="0000:c1:00.0")
    assert accelerators([cuda, vulkan]) == (cuda,)
    other = device("Vulkan1", hardware="0000:c2:00.0")
    assert accelerators([cuda, vulkan, other]) == (cuda, other)


def test_devices_without_a_known_address_are_not_taken_for_one():
    first, second = device("CUDA0"), device("CUDA1")
    assert accelerators([first, second]) == (first, second)
