"""Backends that llama.cpp was built with, and libraries of them that cannot be loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.engine.llama import backends, missing_backends
from modelyard.engine.llama.backends import MissingBackend
from modelyard.errors import LlamaCppUnusable
from modelyard.llama_binding import LIBRARIES, load_backends

NO_DRIVER = "libcuda.so.1: cannot open shared object file: No such file or directory"


def without_driver(library: Path, copy: Path) -> None:
    """Copy a library, and have it need CUDA's driver in the place of another library, whose name has as many bytes."""
    replaced = next(name for name in (b"libgomp.so.1", b"libggml.so.0") if name in library.read_bytes())
    copy.write_bytes(library.read_bytes().replace(replaced, b"libcuda.so.1"))


def test_the_cpus_backend_is_loaded_and_none_is_missing():
    assert "CPU" in backends()
    assert missing_backends() == ()


def test_a_backend_whose_driver_is_missing_is_told_with_the_reason(tmp_path: Path):
    shutil.copy(LIBRARIES / "libggml-base.so", tmp_path)
    shutil.copy(LIBRARIES / "libggml-base.so", tmp_path / "libggml-rpc.so")
    without_driver(LIBRARIES / "libggml-cpu.so", tmp_path / "libggml-cuda.so")
    without_driver(LIBRARIES / "libggml-cpu.so", tmp_path / "libggml-cpu-haswell.so")
    (missing,) = missing_backends(tmp_path)
    assert missing == MissingBackend("cuda", NO_DRIVER)
    assert "so the CPU computes" in str(missing)


def test_a_llama_cpp_that_needs_a_missing_driver_is_an_error_of_one_line(tmp_path: Path):
    without_driver(LIBRARIES / "libllama.so", tmp_path / "libllama.so")
    code = (
        "from modelyard.errors import LlamaCppUnusable\n"
        "try:\n    import modelyard.engine.llama\n"
        "except LlamaCppUnusable as unusable:\n    print(unusable)"
    )
    environment = {**os.environ, "LLAMA_CPP_LIB_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith("llama.cpp cannot be loaded: ")
    assert NO_DRIVER in line
    assert "modelyard doctor" in line


class Function:
    """A function of a library, as ctypes has it."""

    def __init__(self, function):
        self._function = function

    def __call__(self, *arguments):
        return self._function(*arguments)


def library(at_first: int, loadable: int) -> tuple[dict[str, Function], list[bytes]]:
    """A llama.cpp with some backends, and others in libraries; and the folders from which it is asked to load those."""
    folders: list[bytes] = []
    functions = {
        "ggml_backend_reg_count": Function(lambda: loadable if folders else at_first),
        "ggml_backend_load_all_from_path": Function(folders.append),
        "ggml_log_set": Function(lambda *_: None),
    }
    return functions, folders


def test_backends_in_libraries_of_their_own_are_loaded_from_llama_cpps_folder(tmp_path: Path):
    functions, folders = library(0, 2)
    load_backends(functions, tmp_path)
    assert folders == [bytes(tmp_path)]


def test_backends_that_are_there_already_are_not_looked_for(tmp_path: Path):
    functions, folders = library(1, 2)
    load_backends(functions, tmp_path)
    assert folders == []


def test_a_folder_without_any_backend_is_an_error(tmp_path: Path):
    functions, _ = library(0, 0)
    with pytest.raises(LlamaCppUnusable, match="not even the CPU's"):
        load_backends(functions, tmp_path)
