"""What a model really takes, against what was predicted from its header."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.config import validate_config
from modelyard.engine.llama import Weights
from modelyard.engine.llama.library import lib, log
from modelyard.engine.llama.log_lines import buffer_bytes
from modelyard.hub import FileRequest, resolve
from modelyard.yard.memory.layer_shapes import vocabulary_size
from modelyard.yard.memory.step_graph import step_graph
from modelyard.yard.memory.step_operations import Step
from support.busy import Busy, measure_busy
from support.hybrid import write_hybrid

# A prediction is never too low. How much too high it may be: a part of what attention alone takes, and with recurrent
# layers, and what heaps and libraries take less of in one process than in another.
ATTENTION, RECURRENT, SLACK_BYTES = 0.03, 0.05, 10_000_000


def assert_is_close(busy: Busy, part: float) -> None:
    assert busy.predicted >= busy.measured
    assert busy.predicted <= busy.measured * (1 + part) + SLACK_BYTES


@pytest.mark.parametrize(
    ("model", "context", "running", "kept", "kv_type"),
    [
        ("smollm2", None, 32, 16, "f16"),
        pytest.param("smollm2", 2048, 8, 8, "f16", marks=pytest.mark.long),
        ("gemma3", None, 32, 16, "f16"),
        pytest.param("gemma3", None, 8, 8, "q8_0", marks=pytest.mark.long),
        pytest.param("gemma3", 16_384, 4, 4, "f16", marks=pytest.mark.long),
    ],
    ids=["defaults", "small", "a window", "a window, eight bits", "windows alone"],
)
def test_the_prediction_for_attention_is_what_a_busy_model_takes(
    weights: dict[str, Path], model: str, context: int | None, running: int, kept: int, kv_type: str
) -> None:
    busy = measure_busy(weights[model], context=context, running=running, kept=kept, kv_type=kv_type)
    assert_is_close(busy, ATTENTION)


def test_the_prediction_for_attention_that_is_not_fused_is_what_a_busy_model_takes(weights: dict[str, Path]) -> None:
    busy = measure_busy(weights["smollm2"], context=2048, running=8, kept=8, is_fused=False)
    assert_is_close(busy, ATTENTION)


@pytest.fixture(scope="module")
def hybrid(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three recurrent layers and one of attention."""
    return write_hybrid(tmp_path_factory.mktemp("hybrid") / "hybrid.gguf", weights["smollm2"])


@pytest.mark.parametrize(
    ("running", "batch_tokens"),
    [pytest.param(1, 512, marks=pytest.mark.long), pytest.param(32, 512, marks=pytest.mark.long), (8, 2048)],
    ids=["one sequence", "many sequences", "long steps"],
)
def test_the_prediction_for_a_hybrid_is_what_a_busy_model_takes(hybrid: Path, running: int, batch_tokens: int) -> None:
    assert_is_close(measure_busy(hybrid, context=4096, running=running, kept=16, batch_tokens=batch_tokens), RECURRENT)


def test_what_the_server_assumes_by_default_is_what_is_measured_here() -> None:
    runtime = validate_config({"models": [{"model_id": "smol"}]}).runtime
    assert (runtime.max_seqs, runtime.prefix_cache_n) == (32, 16)


@pytest.mark.parametrize("model", ["hybrid", "smollm2", "gemma3"])
def test_the_buffer_of_a_step_is_as_large_as_llama_cpp_says(hybrid: Path, weights: dict[str, Path], model: str) -> None:
    path = {**weights, "hybrid": hybrid}[model]
    loaded = Weights([path], on_progress=lambda _: True)
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 4096, 1024, 1024
    params.n_seq_max = params.n_outputs_max = 4
    params.kv_unified = params.swa_full = True
    log.clear()
    context = lib.llama_init_from_model(loaded.pointer, params)
    logged = buffer_bytes(log.buffers, "compute")
    lib.llama_free(context)
    loaded.free()
    header = resolve(FileRequest(str(path))).header
    told = step_graph(header, Step(4096, 1024, 4, 4), vocabulary_size(header)).buffer_bytes()
    assert told == pytest.approx(logged, rel=0.01)
