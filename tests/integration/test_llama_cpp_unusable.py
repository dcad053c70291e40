"""Commands on a machine that lacks a library that the installed llama.cpp needs, such as a GPU's driver."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.llama_binding import LIBRARIES

NO_DRIVER = "libcuda.so.1: cannot open shared object file: No such file or directory"


@pytest.fixture
def modelyard(tmp_path):
    library = (LIBRARIES / "libllama.so").read_bytes()
    # It then needs CUDA's driver in the place of a library whose name has as many bytes.
    (tmp_path / "libllama.so").write_bytes(library.replace(b"libggml.so.0", b"libcuda.so.1"))

    def run(*arguments):
        command = [sys.executable, "-m", "modelyard", *arguments]
        environment = {**os.environ, "LLAMA_CPP_LIB_PATH": str(tmp_path), "COLUMNS": "500"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    return run


def test_a_server_ends_with_one_line_that_names_the_library(modelyard):
    model = Path(__file__).resolve().parents[2] / ".weights" / "smollm2-135m-instruct-q4_1.gguf"
    done = modelyard("serve", str(model), "--port", "0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: llama.cpp cannot be loaded: ")
    assert NO_DRIVER in line


def test_doctor_tells_it_with_the_command_that_builds_another(modelyard):
    done = modelyard("doctor")
    assert done.returncode == 1
    assert NO_DRIVER in done.stdout
    assert "pip install --force-reinstall" in done.stdout
