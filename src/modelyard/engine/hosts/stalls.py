"""Distinguishes an engine that hangs in llama.cpp from one that is slow.

Wall-clock time alone shows nothing: a machine may sleep, swap, or have no core for a process for minutes. So the
activity of the engine's process during a single step counts. If the process is idle (no thread runs, is ready to run,
or waits for a disk) for minutes, the step hangs. If it computes, its CPU time is compared with the size of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.engine.scheduling.engine_table import EngineActivity
from modelyard.system.process_use import ProcessUse

MAX_STILL_S: Final = 300.0
"""Limit of the time that an engine's process is idle within one step, or stopped by a signal."""

MAX_STEP_CPU_S: Final = 900.0
"""Limit of a step's CPU time, whatever its size."""

MAX_TOKEN_CPU_S: Final = 60.0
"""Further CPU time for each token of a step. A token of the largest dense open models, of 400 billion weights, takes
half of it on a core that computes 30 GFLOPS."""

# CPU time of an idle process, as a fraction of the time between two checks: the thread that reads from the server uses
# it while an engine hangs.
_STILL_CPU_PART: Final = 0.02


@dataclass(frozen=True, slots=True)
class StallBounds:
    """Limits beyond which an engine counts as hanging."""

    still_s: float = MAX_STILL_S
    step_cpu_s: float = MAX_STEP_CPU_S
    token_cpu_s: float = MAX_TOKEN_CPU_S

    def cpu_s(self, tokens: int) -> float:
        """Return the limit of the CPU time of a step of ``tokens``."""
        return self.step_cpu_s + tokens * self.token_cpu_s


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of an engine at one check.

    Attributes:
        step: number of its present step; None if it is in none.
        use: resources that its process has used.
        still_s: for how long it has been idle in this step, or its process stopped.
        cpu_s: CPU time of its process since this step was first observed.
    """

    step: int | None
    use: ProcessUse
    still_s: float = 0.0
    cpu_s: float = 0.0


def observe(before: Observed | None, activity: EngineActivity, use: ProcessUse, passed_s: float) -> Observed:
    """Return the state of an engine at a check, ``passed_s`` after the state ``before``; None: it is the first."""
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
    """Return why an engine counts as hanging, in words for users; None if it does not."""
    if observed.still_s >= bounds.still_s:
        if observed.use.is_stopped:
            return f"its process has been stopped by a signal for {observed.still_s:.0f} s"
        return f"its process has done nothing for {observed.still_s:.0f} s in a step of {activity.tokens} tokens"
    if observed.step is not None and observed.cpu_s >= bounds.cpu_s(activity.tokens):
        return f"a step of {activity.tokens} tokens has taken {observed.cpu_s:.0f} s of computing and does not end"
    return None
