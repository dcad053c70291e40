"""Computes a few layers and prints how long it takes: ``python -m modelyard.engine.hosts.speed_trial_program < TASK``.

Standard input holds a pickled ``SpeedTask``, and stays open as long as the parent waits. Standard output has one JSON
object: ``{"speed": [seconds of a token, seconds of a token of a prompt]}`` or ``{"failure": ...}``.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from dataclasses import astuple
from pathlib import Path
from statistics import median
from typing import Final

from modelyard.engine.hosts.speed_trial import Speed, SpeedTask, extrapolated
from modelyard.engine.llama import Batch, Model, Weights, resolve_here
from modelyard.engine.loading.load import text_context
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.formats.gguf.layer_stand_in import write_stand_in
from modelyard.system.reporting_process import end_with_parent, report

# Enough layers that they do not stay in the processor's caches, and so few that a file is loaded in a moment.
_LAYER_BYTES: Final = 256 << 20
_LEAST_LAYERS: Final = 2

_CONTEXT: Final = 1024
_PROMPT: Final = 128
_PROMPTS, _TOKENS = 3, 32


def measured(task: SpeedTask, folder: Path) -> Speed:
    """Return the speed of the model, by models with few layers that are written to ``folder``.

    Raises:
        UnusableModel: llama.cpp cannot load or compute them.
        OSError: the files cannot be written.
    """
    shapes = task.shapes
    none, one = (write_stand_in(folder / f"{layers}.gguf", shapes, task.weight_type, layers) for layers in (0, 1))
    many = min(shapes.layers, max(_LEAST_LAYERS, _LAYER_BYTES // max(1, one - none)))
    few = max(1, many // 2)
    speeds = [_speed_of(folder / f"{layers}.gguf", task, layers) for layers in (few, many)]
    return extrapolated(*speeds, few_layers=few, many_layers=many, layers=shapes.layers)


def _speed_of(path: Path, task: SpeedTask, layers: int) -> Speed:
    write_stand_in(path, task.shapes, task.weight_type, layers)
    placement = resolve_here(task.placement)
    settings = EngineSettings(
        "stand-in",
        (path,),
        task.weight_type,
        context_length=_CONTEXT,
        max_seqs=1,
        prefix_slots=0,
        placement=placement,
        flash_attn=task.flash_attn,
    )
    weights = Weights((path,), placement=placement, on_progress=lambda _: True, end_tokens=frozenset())
    context = text_context(settings, Model(weights))
    batch, position = Batch(settings.batch_tokens), 0

    def step(count: int) -> float:
        nonlocal position
        length = batch.fill(0, [1] * count, position, 0, outputs=1)
        started = time.perf_counter()
        if context.decode(batch, length) != context.DECODED:
            raise UnusableModel(f"llama.cpp cannot compute {count} tokens in {task.weight_type}.")
        position += count
        return time.perf_counter() - started

    # The first step touches memory that is new.
    step(_PROMPT)
    token_s = median(step(1) for _ in range(_TOKENS))
    prefill_token_s = min(step(_PROMPT) for _ in range(_PROMPTS)) / _PROMPT
    context.free()
    weights.free()
    path.unlink()
    return Speed(token_s, prefill_token_s)


def main() -> int:
    """Measure what standard input describes, and return the exit status."""
    task: SpeedTask = pickle.load(sys.stdin.buffer)
    end_with_parent()
    try:
        with tempfile.TemporaryDirectory(prefix="modelyard-speed-") as folder:
            speed = measured(task, Path(folder))
    except (UnusableModel, OSError) as failure:
        report(failure=str(failure))
    else:
        report(speed=astuple(speed))
    return 0


if __name__ == "__main__":
    status = main()
    # Skip the cleanup, which could hang or crash on threads of llama.cpp.
    os._exit(status)
