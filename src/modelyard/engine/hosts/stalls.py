"""Tells an engine that does not come back from llama.cpp from one that is slow.

Time by the clock tells nothing: a machine may be asleep, swap, or have no core for a process for minutes. So what
counts is what the process of an engine does while the engine is in one and the same step. Either it does nothing at all
(no thread runs, would run if it had a core, or waits for a disk), which no step that goes on does for minutes. Or it
computes, and then the CPU time that it has used is compared with the size of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.engine.scheduling.engine_table import EngineActivity
from modelyard.system.process_use import ProcessUse

MAX_STILL_S: Final = 300.0
"""So long the process of an engine may do nothing within one step, or be stopped by a signal."""

MAX_STEP_CPU_S: Final = 900.0
"""CPU time of a step, whatever its size."""

MAX_TOKEN_CPU_S: Final = 60.0
"""The same, for each of its tokens: a token of the largest open models, of 400 billion weights that are all used, takes
half of it on a core that computes 30 GFLOPS."""

# Of the time between two looks: the thread that listens to the server uses as much while an engine hangs.
_STILL_CPU_PART: Final = 0.02


@dataclass(frozen=True, slots=True)
class StallBounds:
    """What an engine may take before it counts as hanging."""

    still_s: float = MAX_STILL_S
    step_cpu_s: float = MAX_STEP_CPU_S
    token_cpu_s: float = MAX_TOKEN_CPU_S

    def cpu_s(self, tokens: int) -> float:
        """CPU time that a step of ``tokens`` may take."""
        return self.step_cpu_s + tokens * self.token_cpu_s


@dataclass(frozen=True, slots=True)
class Observed:
    """An engine as it was at a look.

    Attributes:
        step: counts its steps; None where it is in none.
        use: of its process.
        still_s: for how long it has done nothing, in this step or because its process is stopped.
        cpu_s: what its process has used since this step was first seen.
    """

    step: int | None
    use: ProcessUse
    still_s: float = 0.0
    cpu_s: float = 0.0


def observe(before: Observed | None, activity: EngineActivity, use: ProcessUse, passed_s: float) -> Observed:
    """The engine at the next look, ``passed_s`` after the one ``before``; None: it is the first."""
    step = activity.step if activity.doing == "computing" else None
    if before is None or before.use.start != use.start:
        return Observed(step, use)
    used_s = use.cpu_s - before.use.cpu_s
    does_nothing = (
        use.is_asleep and use.major_faults == before.use.major_faults and used_s <= _STILL_CPU_PART * passed_s
    )
    is_same_step = step is not None and step == before.step
    is_still = (is_same_step and does_nothing) or (use.is_stopped and before.use.is_stopped)
    return Observed(
        step,
        use,
        before.still_s + passed_s if is_still else 0.0,
        before.cpu_s + used_s if is_same_step else 0.0,
    )


def stall_reason(observed: Observed, activity: EngineActivity, bounds: StallBounds) -> str | None:
    """Why an engine counts as hanging, for people; None where it does not."""
    if observed.still_s >= bounds.still_s:
        if observed.use.is_stopped:
            return f"its process has been stopped by a signal for {observed.still_s:.0f} s"
        return f"its process has done nothing for {observed.still_s:.0f} s in a step of {activity.tokens} tokens"
    if observed.step is not None and observed.cpu_s >= bounds.cpu_s(activity.tokens):
        return f"a step of {activity.tokens} tokens has taken {observed.cpu_s:.0f} s of computing and does not end"
    return None
