"""A simulated yard around the residency machine: callers, engines and a clock that all follow one seed.

``run(seed)`` plays one interleaving and checks every invariant after every step. The world keeps its own books of what
is resident, leased and kept, from the effects alone; the machine's state is only compared with them.

    oracle             what the world knows
    effect_invariants  what must hold of effects: one function each
    step_invariants    what must hold after a step: one function each
    pools              devices, and what must hold of them
    durations          how long things take, and how long anybody may wait
    report             what a violation reports
    world              the clock, the controller, the engines
    actions            what callers and operators do; a whole run
    script             one interleaving, written by hand
    placed             models on devices, for scripts
    deaths             engines that die, for scripts
"""

from support.simulation.actions import play, run, world_of
from support.simulation.report import Violation
from support.simulation.world import Step, World

__all__ = ["Step", "Violation", "World", "play", "run", "world_of"]
