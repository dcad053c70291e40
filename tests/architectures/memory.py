"""Memory: what is predicted for a model, against what a process takes that loads it and fills its context.

    python -m architectures.memory FOLDER VOCABULARY

prints both numbers of bytes, as JSON. It is a process of its own, so that nothing else is counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from architectures.server import environment

CONTEXT: Final = 8192
# A prediction may be too high by what a small model does not take, and too low by what a process takes anyhow.
LEAST, MOST = 0.85, 1.6

_RUNNING, _KEPT = 32, 16
_WAIT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one model with its context.

    Attributes:
        predicted: from its header.
        measured: by which the process grew.
    """

    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        """The prediction as a part of what was measured."""
        return self.predicted / max(1, self.measured)


class NotMeasured(Exception):
    """The process that measures failed; the message has its last words."""


def measure(name: str, folder: Path, vocabulary: int) -> Memory:
    """Load the model of a checkpoint, which was converted to be served as ``name``, and fill its context.

    Raises:
        NotMeasured: it cannot be loaded.
    """
    command = [sys.executable, "-m", "architectures.memory", str(folder), str(vocabulary)]
    tests = Path(__file__).resolve().parents[1]
    env = environment(name)
    env["PYTHONPATH"] = f"{tests}:{env['PYTHONPATH']}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, env=env)
    if done.returncode:
        raise NotMeasured(" ".join(done.stderr[-500:].split()))
    predicted, measured = json.loads(done.stdout.splitlines()[-1])
    return Memory(predicted, measured)


def _resident() -> int:
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def main(folder: str, vocabulary: int) -> None:
    """Print what is predicted and what is measured."""
    from modelyard.engine.llama import Batch
    from modelyard.engine.load import load
    from modelyard.engine.question import Sampling
    from modelyard.engine.sampler import make_sampler
    from modelyard.engine.settings import BATCH_TOKENS, PARKED_PART, EngineSettings
    from modelyard.engine.weights import WeightsPool
    from modelyard.hub import Wanted, resolve
    from modelyard.yard.memory import predict

    files = resolve(Wanted(folder))
    sizes = {"running": _RUNNING, "sequences": _RUNNING + _KEPT, "batch_tokens": BATCH_TOKENS}
    predicted = predict(files, context_length=CONTEXT, kv_type="f16", **sizes)
    before = _resident()
    settings = EngineSettings("m", files.paths, "", context_length=CONTEXT, max_seqs=_RUNNING, prefix_slots=_KEPT)
    engine = load(settings, WeightsPool(), lambda _: True)
    batch, step = Batch(BATCH_TOKENS), min(BATCH_TOKENS, engine.context.length // 4)
    slots = engine.context.length // step
    for slot in range(slots):
        tokens = [20 + (at * 7 + slot) % (vocabulary - 30) for at in range(step)]
        assert engine.context.decode(batch, batch.fill(0, tokens, 0, slot, outputs=1)) == 0
    state = engine.context.save(0)
    # Prefixes that are idle are moved to host memory, as many as their part of it holds.
    parked = engine.context.allocated_bytes // PARKED_PART // max(1, state.nbytes)
    kept = [state.copy() for _ in range(parked)]
    for slot in range(slots):
        engine.context.trim(slot, 0)
    length = 0
    for slot in range(_RUNNING):
        length = batch.fill(length, [300], 0, slot, outputs=1)
    assert engine.context.decode(batch, length) == 0
    for slot, logits in enumerate(engine.context.logits(_RUNNING)):
        sampler = make_sampler(Sampling(temperature=0.8), engine.model, 64, [], ban_end=False)
        sampler.sample(engine.context, slot, logits)
    print(json.dumps([predicted.total_bytes, _resident() - before]))
    del kept


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
