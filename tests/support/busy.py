"""What a model takes of the machine's memory while it is busy, against what is predicted from its header.

    python -m support.busy MODEL CONTEXT RUNNING KEPT BATCH_TOKENS KV_TYPE

loads it as an engine does, fills its context, and touches what a busy server touches: steps of one prompt with logits
and without, guessed answers or, where states cannot be cut back, a step in which all sequences have a part, parked
prefixes, and samplers of all sequences. It prints the bytes predicted for weights and for the context, and those that
the process grew by, as JSON. It is a process of its own, so that nothing else is counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# A busy machine takes minutes.
_WAIT_S: Final = 600


@dataclass(frozen=True, slots=True)
class Busy:
    """Bytes of a busy model."""

    predicted_weights: int
    predicted_context: int
    measured: int

    @property
    def predicted(self) -> int:
        """All of the prediction."""
        return self.predicted_weights + self.predicted_context


def measure_busy(
    model: Path,
    *,
    context: int | None,
    running: int,
    kept: int,
    batch_tokens: int = 512,
    kv_type: str = "f16",
    is_fused: bool = True,
) -> Busy:
    """Measure ``model`` in a child process; it must be able to load."""
    numbers = (context or 0, running, kept, batch_tokens)
    command = [
        sys.executable,
        "-m",
        "support.busy",
        str(model),
        *map(str, numbers),
        kv_type,
        *([] if is_fused else ["unfused"]),
    ]
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, cwd=tests, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return Busy(*json.loads(done.stdout.splitlines()[-1]))


def _resident() -> int:
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def main(
    model: str, context: int, running: int, kept: int, batch_tokens: int, kv_type: str, attention: str = ""
) -> None:
    """Print what is predicted and what is measured."""
    from modelyard.engine.kv.slot_windows import checkpoint_limit
    from modelyard.engine.llama import Batch
    from modelyard.engine.loading.load import load
    from modelyard.engine.loading.weights import WeightsPool
    from modelyard.engine.output.sampler import make_sampler
    from modelyard.engine.settings import PARKED_PART, EngineSettings
    from modelyard.hub import FileRequest, resolve
    from modelyard.protocol.prompts import Sampling
    from modelyard.yard.memory.cache_bytes import is_windowed
    from modelyard.yard.memory.prediction import ContextSettings, predict

    files, sequences = resolve(FileRequest(model)), running + kept
    flash_attn = False if attention == "unfused" else None
    settings = ContextSettings(
        context_length=context or None,
        running=running,
        sequences=sequences,
        batch_tokens=batch_tokens,
        kv_type="q8_0" if kv_type == "q8_0" else "f16",
        flash_attn=flash_attn,
    )
    predicted = predict(files, settings)
    before = _resident()
    engine = load(
        EngineSettings(
            "m",
            files.paths,
            "",
            context_length=context or None,
            max_seqs=running,
            prefix_slots=kept,
            batch_tokens=batch_tokens,
            kv_type="q8_0" if kv_type == "q8_0" else "f16",
            flash_attn=flash_attn,
            is_windowed=is_windowed(files.header),
        ),
        WeightsPool(),
        lambda _: True,
    )
    inside, batch = engine.context, Batch(batch_tokens)
    words = range(100, min(300, engine.model.vocab_size))
    positions = [0] * sequences

    def step(parts: list[tuple[int, int]], outputs: int = 1) -> None:
        length = 0
        for slot, count in parts:
            tokens = [words[(at * 7 + slot) % len(words)] for at in range(count)]
            length = batch.fill(length, tokens, positions[slot], slot, outputs=min(outputs, count))
            positions[slot] += count
        assert inside.decode(batch, length) == 0, inside.failure()

    def clear(slot: int) -> None:
        inside.trim(slot, 0)
        positions[slot] = 0

    # All sequences are as long as leaves one step; all but the first are copies of it.
    each = max(1, (inside.length - batch_tokens - 2 * sequences) // sequences)
    while (rest := each - positions[0]) > 0:
        step([(0, min(rest, batch_tokens))], outputs=0)
    state = inside.save(0)
    for slot in range(1, sequences):
        assert inside.restore(slot, state)
        positions[slot] = each
    can_trim = engine.model.can_trim
    # What the engine keeps beside the context: whole prefixes, or checkpoints.
    limit = inside.allocated_bytes // PARKED_PART if can_trim else checkpoint_limit(inside)
    one = state if can_trim else inside.save_state(0)
    parked = [one.copy() for _ in range(limit // one.nbytes)]
    if can_trim and (limit := checkpoint_limit(inside)):
        one = inside.save_state(0)
        parked += [one.copy() for _ in range(limit // one.nbytes)]
    del state, one
    clear(0)
    step([(0, min(batch_tokens, inside.length // 2))])
    clear(0)
    if can_trim:
        step([(0, min(sequences, batch_tokens))], outputs=sequences)
    else:
        step([(slot, max(1, batch_tokens // running)) for slot in range(running)])
    step([(slot, 1) for slot in range(running)])
    # With a seed, llama.cpp's chain draws, which keeps a list of all candidates.
    drawn = Sampling(temperature=0.8, seed=1)
    samplers = [make_sampler(drawn, engine.model, 64, [], ban_end=False) for _ in range(running)]
    for slot, logits in enumerate(inside.logits(running)):
        samplers[slot].sample(inside, slot, logits)
    print(json.dumps([predicted.weights_bytes, predicted.context_bytes, _resident() - before]))
    del parked


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]), *sys.argv[6:])
