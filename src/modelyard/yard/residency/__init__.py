"""Which models are resident: all decisions, as a pure state machine.

No clock, no threads, no I/O. Events go in, effects come out; the conductor runs the effects, in order, and feeds their
outcomes back as events. Time enters as ``Tick``. So every interleaving can be replayed from a seed.

A model is unloaded, sizing, loading, loaded, freeing or failed. Everybody who wants something of it stands in one line.
Two rules decide everything:

The first in a line gets what it wants as soon as its model allows it:

    request   loaded: a lease.      unloaded: load, wait.   failed: refused until the back-off is over, then load.
    reload    loaded: done.         unloaded or failed: load, wait.
    unload    unloaded: done.       loaded: free, at once or after the last lease.   loading: wait.

The most urgent model that somebody waits for gets its memory: from what is free; from what idle models give up; from
busy ones that have had their time. What is loading, pinned or more urgent stays.
"""

from modelyard.yard.residency.step import advance_clock, step

__all__ = ["advance_clock", "step"]
