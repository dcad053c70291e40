"""Planning the memory of a model in a process of its own, also where that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.engine.hosts.dry_load import run_dry_load
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import ON_HOST, DeviceBytes
from support.gguf_writer import tiny_encoder, tiny_model, write


def of(path: Path, **settings: object) -> EngineSettings:
    chosen = {"context_length": 256, "max_seqs": 4, "prefix_slots": 0, "placement": ON_HOST} | settings
    return EngineSettings("tiny", (path,), "F32", **chosen)  # type: ignore[arg-type]


def run(program: str, **options: object) -> object:
    return run_dry_load(of(Path("tiny.gguf")), program=("-c", program), **options)  # type: ignore[arg-type]


def test_a_model_on_the_host_takes_weights_cache_buffers_and_outputs(tmp_path: Path) -> None:
    found = run_dry_load(of(write(tmp_path / "tiny.gguf", tiny_model())))
    assert found is not None
    (host,) = found.values()
    assert set(found) == {"host"}
    # 256 cells of K and V, 16 numbers each in F16.
    assert host.kv == 256 * 2 * 16 * 2
    assert host.weights > 30_000
    assert host.compute > 0


def test_an_embedding_model_is_planned_with_a_context_that_pools(tmp_path: Path) -> None:
    found = run_dry_load(of(write(tmp_path / "bert.gguf", tiny_encoder()), kind="embedding", context_length=None))
    assert found is not None
    assert found["host"].kv == 0


def test_a_file_that_is_no_model_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match=r"llama\.cpp cannot load tiny\.gguf"):
        run_dry_load(of(write(tmp_path / "tiny.gguf", b"GGUF")))


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(UnusableModel, match=r"cannot plan the memory of the model: its process ended with status 3\."):
        run("import sys; sys.exit(3)")
    with pytest.raises(UnusableModel, match=r"its process was ended by SIGABRT: ggml\.c:7: GGML_ASSERT"):
        run("import os, sys; print('/build/ggml/src/ggml.c:7: GGML_ASSERT', file=sys.stderr, flush=True); os.abort()")


def test_where_llama_cpp_cannot_tell_nothing_is_known() -> None:
    assert run("""print('{"bytes": null}')""") is None


def test_a_plan_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(UnusableModel, match="within 0 s"):
        run("import time; time.sleep(60)", wall_s=0.0)


def test_a_plan_that_is_given_up_ends_at_once() -> None:
    with pytest.raises(UnusableModel, match="was ended by SIGKILL"):
        run("import time; time.sleep(60)", goes_on=lambda: False)


def test_sizes_are_read_by_device() -> None:
    found = run("""print('{"bytes": {"CUDA0": [4, 3, 2, 0], "host": [1, 0, 1, 7]}}')""")
    assert found == {"CUDA0": DeviceBytes(4, 3, 2), "host": DeviceBytes(1, 0, 1, 7)}


def test_importing_an_engine_initialises_no_device(tmp_path: Path) -> None:
    """Processes of engines are forks of one that has imported everything; drivers of devices work in no fork."""
    program = (
        "from modelyard.engine.hosts import engine_program\n"
        "from modelyard.engine.llama import devices\n"
        "from modelyard.errors import UnusableModel\n"
        "try:\n"
        "    devices()\n"
        "except UnusableModel as unusable:\n"
        "    print(unusable)\n"
    )
    environment = {**os.environ, "GGML_BACKEND_PATH": str(tmp_path / "no-such.so")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("GGML_BACKEND_PATH names ")
