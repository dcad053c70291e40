"""Which models are resident: all decisions, as a pure state machine.

No clock, no threads, no I/O. Events go in, effects come out; the lifecycle controller runs the effects in order, and
feeds their outcomes back as events. Time enters as ``Tick``. So every interleaving can be replayed from a seed.

A model is unloaded, sizing, loading, loaded, freeing, parked or failed. All requests and operations of a model wait in
one queue. Two rules decide everything:

The head of a queue is served as soon as its model allows it:

    request   loaded: a lease.      unloaded: load, wait.   failed: refused until the back-off is over, then load.
    reload    loaded: done.         unloaded or failed: load, wait.
    unload    unloaded: done.       loaded: free, at once or after the last lease.   loading: wait.

The most urgent model that is waited for gets its memory: from what is free, then from idle models, then from busy ones
that have been loaded long enough. Models that are loading, pinned or more urgent stay.
"""

from modelyard.yard.residency.step import advance_clock, step

__all__ = ["advance_clock", "step"]
