"""What a model really takes, against what was predicted from its header."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from modelyard.config import validate_config
from support.server import WAIT_S

# Loads a model as an engine does, then touches what a busy server touches: a step of prompt in a full context, one step
# in which every sequence samples, and prefixes beside the context.
BUSY = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    from modelyard.engine.llama import Batch
    from modelyard.engine.load import load
    from modelyard.engine.question import Sampling
    from modelyard.engine.sampler import make_sampler
    from modelyard.engine.settings import BATCH_TOKENS, PARKED_PART, EngineSettings
    from modelyard.engine.weights import WeightsPool
    from modelyard.hub import Wanted, resolve
    from modelyard.yard.memory import predict

    def resident():
        return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024

    path, context, running, kept = sys.argv[1], int(sys.argv[2]) or None, int(sys.argv[3]), int(sys.argv[4])
    kv_type = sys.argv[5]
    files = resolve(Wanted(path))
    how = {"running": running, "sequences": running + kept, "batch_tokens": BATCH_TOKENS}
    predicted = predict(files, context_length=context, kv_type=kv_type, **how)
    before = resident()
    settings = EngineSettings(
        "m", files.paths, "", context_length=context, max_seqs=running, prefix_slots=kept, kv_type=kv_type
    )
    engine = load(settings, WeightsPool(), lambda _: True)
    batch, step = Batch(BATCH_TOKENS), min(BATCH_TOKENS, engine.context.length // 4)
    def prefill(slot):
        length = batch.fill(0, [300 + i for i in range(step)], 0, slot, outputs=1)
        assert engine.context.decode(batch, length) == 0
    prefill(0)
    # The cells up to the last but one step are filled with what is computed already.
    state, slots = engine.context.save(0), engine.context.length // step - 1
    for slot in range(1, slots):
        assert engine.context.restore(slot, state)
    # Idle prefixes that are parked.
    parked = [state.copy() for _ in range(engine.context.allocated_bytes // PARKED_PART // state.nbytes)]
    del state
    prefill(slots)
    for slot in range(running):
        engine.context.trim(slot, 0)
    length = 0
    for slot in range(running):
        length = batch.fill(length, [300], 0, slot, outputs=1)
    assert engine.context.decode(batch, length) == 0
    drawn = Sampling(temperature=0.8)
    for slot, logits in enumerate(engine.context.logits(running)):
        make_sampler(drawn, engine.model, 64, [], ban_end=False).sample(engine.context, slot, logits)
    print(json.dumps([predicted.weights_bytes, predicted.context_bytes, resident() - before]))
""")


@pytest.mark.parametrize(
    ("model", "context", "running", "kept", "kv_type"),
    [
        ("smollm2", 0, 32, 16, "f16"),
        ("smollm2", 2048, 8, 8, "f16"),
        ("gemma3", 0, 32, 16, "f16"),
        ("gemma3", 0, 8, 8, "q8_0"),
    ],
    ids=["defaults", "small", "a window", "a window, eight bits"],
)
def test_the_prediction_is_within_a_tenth_of_what_a_busy_model_takes(
    weights: dict[str, Path], model: str, context: int, running: int, kept: int, kv_type: str
) -> None:
    command = [sys.executable, "-c", BUSY, str(weights[model]), str(context), str(running), str(kept), kv_type]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    of_weights, of_context, measured = json.loads(done.stdout)
    assert 0.9 < (of_weights + of_context) / measured < 1.1


def test_what_the_server_assumes_by_default_is_what_is_measured_here() -> None:
    runtime = validate_config({"models": [{"model_id": "smol"}]}).runtime
    assert (runtime.max_seqs, runtime.prefix_cache_n) == (32, 16)
