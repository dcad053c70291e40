"""Measures how fast a model would compute here, on a few layers of its shapes, in a process of its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.engine.hosts.last_words import how_it_ended
from modelyard.errors import UnusableModel
from modelyard.formats.gguf.layer_stand_in import LayerShapes
from modelyard.protocol.placement import Placement
from modelyard.system.reporting_process import run_to_outcome

PROGRAM: Final = ("-m", "modelyard.engine.hosts.speed_trial_program")
WALL_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class SpeedTask:
    """What is measured.

    Attributes:
        shapes: of the model.
        weight_type: name of the type of its weights.
        flash_attn: None: where the device has it.
        placement: where it computes.
    """

    shapes: LayerShapes
    weight_type: str
    flash_attn: bool | None
    placement: Placement


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one sequence is computed, in seconds.

    Attributes:
        token_s: of a step of one token, after a short prompt.
        prefill_token_s: of one token of a prompt.
    """

    token_s: float
    prefill_token_s: float


def extrapolated(few: Speed, many: Speed, *, few_layers: int, many_layers: int, layers: int) -> Speed:
    """Return the speed of a model with ``layers``, from two with fewer; the rest is counted once."""

    def whole(few_s: float, many_s: float) -> float:
        each = max(0.0, (many_s - few_s) / (many_layers - few_layers)) if many_layers > few_layers else 0.0
        return many_s + each * (layers - many_layers)

    return Speed(whole(few.token_s, many.token_s), whole(few.prefill_token_s, many.prefill_token_s))


def measure_speed(
    task: SpeedTask, *, goes_on: Callable[[], bool] = lambda: True, program: Sequence[str] = PROGRAM
) -> Speed:
    """Measure it.

    Args:
        task: what is measured.
        goes_on: called ten times a second; if it returns False the process is ended.
        program: arguments of the interpreter that runs it.

    Raises:
        UnusableModel: llama.cpp cannot compute it, the time ran out, or it was ended.
    """
    outcome, ended = run_to_outcome(program, pickle.dumps(task), wall_s=WALL_S, goes_on=goes_on)
    if "failure" in outcome:
        raise UnusableModel(str(outcome["failure"]))
    if "speed" in outcome:
        return Speed(*outcome["speed"])
    if ended.is_late:
        raise UnusableModel(f"A few layers in {task.weight_type} have not been computed within {WALL_S:.0f} s.")
    raise UnusableModel(f"{task.weight_type} cannot be measured: {how_it_ended(ended.status, ended.log)}.")
