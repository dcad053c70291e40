"""What a model really takes, against what was predicted from its header."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.config import validate_config
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
        ("smollm2", 2048, 8, 8, "f16"),
        ("gemma3", None, 32, 16, "f16"),
        ("gemma3", None, 8, 8, "q8_0"),
    ],
    ids=["defaults", "small", "a window", "a window, eight bits"],
)
def test_the_prediction_for_attention_is_what_a_busy_model_takes(
    weights: dict[str, Path], model: str, context: int | None, running: int, kept: int, kv_type: str
) -> None:
    busy = measure_busy(weights[model], context=context, running=running, kept=kept, kv_type=kv_type)
    assert_is_close(busy, ATTENTION)


@pytest.fixture(scope="module")
def hybrid(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three recurrent layers and one of attention."""
    return write_hybrid(tmp_path_factory.mktemp("hybrid") / "hybrid.gguf", weights["smollm2"])


@pytest.mark.parametrize(
    ("running", "batch_tokens"), [(1, 512), (32, 512), (8, 2048)], ids=["one sequence", "many sequences", "long steps"]
)
def test_the_prediction_for_a_hybrid_is_what_a_busy_model_takes(hybrid: Path, running: int, batch_tokens: int) -> None:
    assert_is_close(measure_busy(hybrid, context=4096, running=running, kept=16, batch_tokens=batch_tokens), RECURRENT)


def test_what_the_server_assumes_by_default_is_what_is_measured_here() -> None:
    runtime = validate_config({"models": [{"model_id": "smol"}]}).runtime
    assert (runtime.max_seqs, runtime.prefix_cache_n) == (32, 16)
