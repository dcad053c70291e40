"""A simulated yard around the residency machine: callers, engines and a clock that all follow one seed.

``run(seed)`` plays one interleaving and checks every invariant after every step. The world keeps its own books of what
is resident, leased and kept, from the effects alone; the machine's state is only compared with them.

    books       what the world knows
    invariants  what must hold: one function each
    world       the clock, the controller, the engines
    deeds       what callers and operators do; a whole run
"""

from support.simulation.actions import play, run, world_of
from support.simulation.world import Step, Violation, World

__all__ = ["Step", "Violation", "World", "play", "run", "world_of"]
