"""Settings that are each within their range are so together: llama.cpp aborts on none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.engine.hosts.trial import run_trial
from modelyard.engine.hosts.trial_task import TrialLimits, TrialTask
from modelyard.engine.settings import EngineSettings
from support.gguf_writer import VOCABULARY, tiny_model, write

LIMITS = TrialLimits(cpu_s=60.0, wall_s=240.0, data_bytes=1 << 34)


@pytest.mark.parametrize(
    ("max_seqs", "prefix_slots", "batch_tokens", "context_length"),
    [
        # A batch of fewer tokens than the context has slots, of which each may want a row of logits.
        (32, 16, 32, 2048),
        (1, 255, 32, None),
        (256, 0, 256, 256),
        # A context of fewer tokens than a step, and than slots.
        (1, 0, 512, 1),
        (32, 16, 512, 1),
        (1, 0, 8192, 128),
    ],
)
def test_a_model_is_served_with(
    tmp_path: Path, max_seqs: int, prefix_slots: int, batch_tokens: int, context_length: int | None
) -> None:
    settings = EngineSettings(
        "tiny",
        (write(tmp_path / "tiny.gguf", tiny_model()),),
        "F32",
        context_length=context_length,
        max_seqs=max_seqs,
        prefix_slots=prefix_slots,
        batch_tokens=batch_tokens,
    )
    # A trial with the settings as they are: it raises what is wrong.
    run_trial(TrialTask(settings, len(VOCABULARY), repacks=True, limits=LIMITS))
