"""How llama.cpp is built into .venv: by hand, as before, or for what the machine has."""

import ast
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import llama_build
import pytest
from llama_build import Build, BuildRefused, Kept, plan_build

from modelyard.system.llama_builds import BuildFacts, cmake_args

BARE = BuildFacts()
CUDA = BuildFacts(gpus=frozenset({"NVIDIA"}), nvcc="/usr/bin/nvcc", cuda=(12, 4), has_cublas=True)
CUDA_ARGS = cmake_args("cuda", CUDA)
NO_TOOLKIT = replace(CUDA, nvcc="")
# Of the set-up, which runs before anything is installed.
SCRIPTS = ("setup_venv.py", "llama_build.py", "lock_file.py", "pip_output.py", "setup_process.py")


def planned(environment=None, kept=None, facts=BARE):
    return plan_build(environment or {}, kept or Kept(), lambda: facts)


def test_a_first_build_is_for_what_the_machine_has():
    assert planned() == Build("auto cpu")
    assert planned(facts=CUDA) == Build("auto cuda", CUDA_ARGS, "-march=native", "CUDA (NVIDIA)")


def test_a_gpu_whose_toolkit_is_missing_gets_the_cpu_and_notes():
    build = planned(facts=NO_TOOLKIT)
    assert (build.chosen, build.cmake_args) == ("auto cpu", "")
    assert any("nvcc, is not found" in note for note in build.notes)


def test_a_toolkit_that_was_installed_since_is_used():
    assert planned(kept=Kept("auto cpu"), facts=CUDA).chosen == "auto cuda"
    assert planned(kept=Kept("auto vulkan", "-DGGML_VULKAN=ON"), facts=CUDA).chosen == "auto cuda"


def test_a_driver_that_is_not_loaded_today_changes_nothing_unless_it_is_asked():
    kept = Kept("auto cuda", CUDA_ARGS)
    assert planned(kept=kept) == Build("auto cuda", CUDA_ARGS, "-march=native", "CUDA")
    assert planned({"MODELYARD_BACKEND": "auto"}, kept) == Build("auto cpu")


def test_a_backend_that_is_named_is_built_although_there_is_no_gpu_and_stays():
    facts = replace(CUDA, gpus=frozenset())
    build = planned({"MODELYARD_BACKEND": "CUDA"}, facts=facts)
    assert (build.chosen, build.what) == ("cuda", "CUDA")
    again = plan_build({}, Kept(build.chosen, build.cmake_args), lambda: pytest.fail("the machine was asked"))
    assert (again.chosen, again.cmake_args, again.flags) == (build.chosen, build.cmake_args, build.flags)


def test_the_cpu_can_be_chosen_on_a_machine_with_a_gpu():
    assert planned({"MODELYARD_BACKEND": "cpu"}, Kept("auto cuda", CUDA_ARGS), CUDA) == Build("cpu")
    assert planned({}, Kept("cpu"), CUDA) == Build("cpu")


def test_cmake_args_alone_are_taken_as_they_are_and_stay():
    assert planned({"CMAKE_ARGS": "-DGGML_CUDA=on"}, facts=CUDA) == Build("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert planned({"CMAKE_ARGS": ""}, Kept("cuda", CUDA_ARGS), CUDA) == Build("CMAKE_ARGS", "")
    assert planned({}, Kept("CMAKE_ARGS", "-DA=1"), CUDA).cmake_args == "-DA=1"
    assert planned({}, Kept("CMAKE_ARGS", CUDA_ARGS), CUDA) == Build("CMAKE_ARGS", CUDA_ARGS)


def test_cmake_args_that_an_older_version_kept_were_given_by_hand():
    assert planned({}, Kept("", "-DGGML_CUDA=on"), CUDA) == Build("CMAKE_ARGS", "-DGGML_CUDA=on")


def test_cmake_args_beside_a_backend_are_added_to_its_own():
    environment = {"MODELYARD_BACKEND": "cuda", "CMAKE_ARGS": "-DGGML_CUDA_NO_VMM=ON"}
    assert planned(environment, facts=CUDA).cmake_args == f"{CUDA_ARGS} -DGGML_CUDA_NO_VMM=ON"


def test_a_backend_that_does_not_exist_and_one_that_cannot_be_built_are_refused():
    with pytest.raises(BuildRefused, match=r"MODELYARD_BACKEND=opencl names no backend\. Known: auto, cuda, hip"):
        planned({"MODELYARD_BACKEND": "opencl"})
    with pytest.raises(BuildRefused, match=r"nvcc, is not found\. (.|\n)*MODELYARD_BACKEND=cpu make install"):
        planned({"MODELYARD_BACKEND": "cuda"}, facts=NO_TOOLKIT)


@pytest.mark.parametrize(
    ("chosen", "given", "is_set_up"),
    [
        ("auto cuda", {}, False),
        ("cuda", {"MODELYARD_BACKEND": "cuda"}, False),
        ("auto cuda", {"MODELYARD_BACKEND": "cuda"}, True),
        ("cuda", {"MODELYARD_BACKEND": "cpu"}, True),
        ("auto cuda", {"MODELYARD_BACKEND": "auto"}, True),
        ("CMAKE_ARGS", {"CMAKE_ARGS": "-DA=1"}, False),
        ("CMAKE_ARGS", {"CMAKE_ARGS": "-DB=1"}, True),
    ],
)
def test_make_sets_up_again_where_another_build_is_asked_for(tmp_path, chosen, given, is_set_up):
    root = Path(llama_build.__file__).parents[1]
    (tmp_path / "Makefile").write_text((root / "Makefile").read_text())
    sources = [f"scripts/{name}" for name in SCRIPTS]
    facts = ("src/modelyard/system/build_facts.py", "src/modelyard/system/llama_builds.py")
    made = (".venv/backend", ".venv/cmake-args", ".venv/installed")
    for name in ("pyproject.toml", "requirements.lock", *sources, *facts, *made):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text({".venv/backend": chosen, ".venv/cmake-args": "-DA=1"}.get(name, ""))
    environment = {"PATH": os.environ["PATH"], **given}
    done = subprocess.run(["make", "-n", "install"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("setup_venv.py" in done.stdout) is is_set_up


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_old_python_can_read_what_refuses_it(script):
    source = Path(llama_build.__file__).with_name(script).read_text()
    ast.parse(source, feature_version=(3, 8))
