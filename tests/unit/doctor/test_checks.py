"""What facts about a machine mean, on machines that a test makes up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from modelyard.doctor.checks import Facts, Folder, check_facts, is_usable
from modelyard.doctor.finding import Finding
from modelyard.doctor.hub import HubFacts
from modelyard.doctor.llama import LlamaFacts
from modelyard.doctor.settings import UnsafeSetting
from modelyard.system.llama_builds import BuildFacts

GB = 1_000_000_000
FOLDER = Folder("Downloaded models", Path("/cache/hub"), 2, 3 * GB, 500 * GB, is_writable=True)
CPU = {"name": "CPU", "description": "Xeon", "kind": "cpu", "free_bytes": 30 * GB, "total_bytes": 32 * GB}
GPU = {"name": "CUDA0", "description": "RTX", "kind": "gpu", "free_bytes": 20 * GB, "total_bytes": 24 * GB}

WELL = Facts(
    modelyard="1.2.3",
    python="3.12.1",
    system="Linux 6.1 x86_64",
    packages={
        "llama-cpp-python": "0.3.36",
        "huggingface_hub": "2.4.0",
        "torch": "2.6.0",
        "transformers": "5.0",
    },
    conversion_missing=(),
    llama=LlamaFacts(version="0.5.0", features=("AVX", "AVX2", "FMA"), devices=(CPU,)),
    processor="Xeon",
    processor_flags=frozenset({"avx", "avx2", "fma", "sse"}),
    cores=8,
    compute_cores=8,
    cpu_quota=None,
    build=BuildFacts(package_manager="apt", knows_amx=True),
    is_made_by_make=False,
    physical_bytes=32 * GB,
    total_bytes=32 * GB,
    available_bytes=30 * GB,
    swap_bytes=(0, 0),
    huge_pages="madvise",
    folders=(FOLDER,),
    hub=HubFacts("https://hub", "reachable", "", has_token=True),
    open_files=(4096, 8192),
    address=("127.0.0.1", 1234),
    address_problem="",
)


def finding(name: str, **changes: Any) -> Finding:
    (found,) = (found for found in check_facts(replace(WELL, **changes)) if found.name == name)
    return found


def noted(name: str, **changes: Any) -> Finding:
    found = finding(name, **changes)
    assert found.verdict == "note"
    assert found.advice
    assert is_usable(check_facts(replace(WELL, **changes)))
    return found


def problem(name: str, **changes: Any) -> Finding:
    found = finding(name, **changes)
    assert found.verdict == "problem"
    assert found.advice
    assert not is_usable(check_facts(replace(WELL, **changes)))
    return found


def test_a_sound_machine_has_no_advice():
    assert {(found.verdict, found.advice) for found in check_facts(WELL)} == {("ok", "")}
    assert is_usable(check_facts(WELL))


def test_the_names_are_stable():
    assert [found.name for found in check_facts(WELL)] == [
        *("versions", "llama_cpp", "cpu_features", "devices", "cores", "memory", "control_group", "swap"),
        *("huge_pages", "downloaded_models", "hub", "token", "conversion", "open_files", "port", "security"),
    ]


def test_a_llama_cpp_that_cannot_be_used_is_a_problem():
    assert problem("llama_cpp", packages={}).value == "llama-cpp-python is not installed"
    broken = problem("llama_cpp", llama=LlamaFacts("It cannot be loaded: no libllama.so"))
    assert broken.value == "llama-cpp-python 0.3.36: It cannot be loaded: no libllama.so"
    assert broken.command.startswith("CMAKE_ARGS=")


def test_a_llama_cpp_for_another_processor_is_to_be_built_here():
    found = problem("llama_cpp", llama=LlamaFacts("It ended its process with SIGILL."))
    assert found.advice == "It was built for another processor. Build it on this machine."
    assert found.command.startswith('CMAKE_ARGS="-DGGML_NATIVE=on" pip install ')
    build = replace(WELL.build, gpus=frozenset({"Intel"}), has_glslc=True, vulkan_header=300, has_spirv_headers=True)
    assert "-DGGML_VULKAN=ON" in problem("llama_cpp", llama=LlamaFacts("It is broken."), build=build).command


def test_features_that_llama_cpp_leaves_unused_are_named():
    found = noted("cpu_features", processor_flags=frozenset({"avx", "avx2", "fma", "avx512f", "avx512_vnni"}))
    assert found.value == "Xeon; llama.cpp uses AVX, AVX2, FMA, but not AVX512, AVX512_VNNI"
    assert found.facts["unused"] == ["AVX512", "AVX512_VNNI"]
    assert "-DGGML_NATIVE=on" in found.command


def test_kernels_for_amx_are_not_missed_where_they_were_left_out():
    facts = replace(WELL, processor_flags=frozenset({"avx", "avx2", "fma", "amx_int8"}))
    assert next(each for each in check_facts(facts) if each.name == "cpu_features").verdict == "ok"


def test_a_llama_cpp_with_kernels_for_amx_is_to_be_built_without_them():
    found = noted("cpu_features", llama=replace(WELL.llama, features=("AVX", "AVX2", "FMA", "AMX_INT8")))
    assert "crash on some models" in found.value
    assert found.command.startswith('CFLAGS="-mno-amx-tile')


def test_every_command_that_builds_leaves_out_kernels_for_amx_where_the_processor_has_it():
    amx = {"processor_flags": frozenset({"avx", "avx512f", "amx_int8"})}
    assert "-mno-amx-int8" in noted("cpu_features", **amx).command
    build = replace(WELL.build, gpus=frozenset({"AMD"}))
    assert "-march=native -mno-amx-tile" in noted("devices", build=build, **amx).command
    assert "amx" not in noted("devices", build=build).command
    # GCC before 11 refuses the flags, and has no kernels for AMX.
    assert "amx" not in noted("devices", build=replace(build, knows_amx=False), **amx).command


def test_features_are_built_in_for_the_gpu_that_llama_cpp_was_built_for():
    llama = replace(WELL.llama, backends=("CUDA", "CPU"))
    command = noted("cpu_features", llama=llama, processor_flags=frozenset({"avx", "avx512f"})).command
    assert "-DGGML_CUDA=ON" in command
    assert command.startswith('CFLAGS="-march=native"')
    assert command.endswith("llama-cpp-python==0.3.36")


def test_cores_that_do_not_compute_are_named():
    value = "16, of which models compute on 8: the others share a core, or are slower"
    assert finding("cores", cores=16).value == value
    assert finding("cores").value == "8"


def test_a_quota_below_the_cores_is_noted():
    assert finding("cores", cpu_quota=8.0).verdict == "ok"
    assert noted("cores", cpu_quota=2.5).value == "8, but a control group leaves the time of 2.5"


def test_memory_is_judged_by_what_is_available():
    assert finding("memory").value == "30.0 of 32.0 GB available"
    noted("memory", available_bytes=GB)
    problem("memory", available_bytes=GB // 10)


def test_the_limit_of_a_control_group_is_shown():
    found = finding("control_group", total_bytes=4 * GB)
    assert found.value == "4.0 of the machine's 32.0 GB"
    assert found.facts["memory_limit_bytes"] == 4 * GB
    assert finding("control_group").facts["memory_limit_bytes"] is None


def test_swap_in_use_is_noted():
    assert finding("swap", swap_bytes=(8 * GB, GB)).value == "1.0 of 8.0 GB used"
    noted("swap", swap_bytes=(8 * GB, 5 * GB))


def test_huge_pages_that_are_switched_off_are_noted():
    assert finding("huge_pages", huge_pages="always").value == "used"
    assert "echo madvise" in noted("huge_pages", huge_pages="never").command
    assert "huge_pages" not in {found.name for found in check_facts(replace(WELL, huge_pages=""))}


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_noted():
    assert finding("downloaded_models").value == "2, 3.0 GB, in /cache/hub; 500.0 GB are free"
    assert "cache list" in noted("downloaded_models", folders=(replace(FOLDER, free_bytes=GB),)).advice
    assert "permissions" in noted("downloaded_models", folders=(replace(FOLDER, is_writable=False),)).advice


def test_a_hub_that_is_not_there_is_noted():
    gone = HubFacts("https://hub", "unreachable", "no answer", has_token=False)
    assert noted("hub", hub=gone).value == "https://hub cannot be reached: no answer"
    assert "HF_HUB_OFFLINE" in noted("hub", hub=replace(gone, state="offline")).advice
    assert "token_source" in noted("hub", hub="token_source: The environment variable X is not set.").advice


def test_a_token_is_found_or_not():
    assert finding("token").value == "found"
    none = HubFacts("https://hub", "reachable", "", has_token=False)
    assert "hf auth login" in finding("token", hub=none).value


def test_without_the_converter_it_is_said_how_to_get_it():
    found = noted("conversion", conversion_missing=("torch", "llama.cpp's converter"))
    assert found.facts["missing"] == ["torch", "llama.cpp's converter"]
    assert found.command == "pip install 'modelyard[convert]' && modelyard install-converter"


def test_few_open_files_are_noted():
    assert noted("open_files", open_files=(256, 8192)).command == "ulimit -n 8192"
    assert finding("open_files", open_files=(-1, -1)).value == "no limit"


def test_a_port_that_is_taken_is_noted():
    assert "--port" in noted("port", address_problem="address already in use").advice


def test_each_unsafe_setting_is_a_note_with_its_advice():
    unsafe = UnsafeSetting("any_page", 'cors_origins = ["*"]', "Every page may use the server.", "List the origins.")
    found = check_facts(replace(WELL, unsafe=(unsafe,)))[-1]
    assert (found.name, found.verdict, found.advice) == ("any_page", "note", "List the origins.")
    assert found.value == 'cors_origins = ["*"]: Every page may use the server.'
