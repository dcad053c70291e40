"""What a violation reports: the last events, and the states of the machine and of the world."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.yard.residency.effects import Effect
from modelyard.yard.residency.events import ResidencyEvent
from modelyard.yard.residency.state import Residency
from support.simulation.oracle import Oracle

TRACED = 30


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, seed: int, invariant: str, message: str, picture: str) -> None:
        super().__init__(f"seed {seed}: {invariant}: {message}\n{picture}")
        self.seed, self.invariant, self.message = seed, invariant, message


def picture(trace: Sequence[tuple[float, ResidencyEvent | Effect]], state: Residency, oracle: Oracle) -> str:
    """The last events, the machine's state and the world's."""
    lines = [f"  {now:9.3f} {what}" for now, what in list(trace)[-TRACED:]]
    lines.append(f"  state: budget {state.budget_bytes} {dict(state.device_budgets)}, due at {state.due_at}")
    for name, model in sorted(state.models.items()):
        lines.append(f"    {name}: {model}")
    lines.append(f"  world: at {oracle.now:.3f}, {oracle.used()} used of {oracle.budgets}")
    lines += [f"    engine of {name}: {engine}" for name, engine in oracle.engines.items()]
    lines += [f"    request {number}: {request}" for number, request in oracle.requests.items()]
    lines += [f"    caller {number}: {caller}" for number, caller in oracle.callers.items()]
    return "\n".join(lines)
