"""Which models are resident: all decisions, as a pure state machine.

No clock, no threads, no I/O. Events go in, effects come out; the lifecycle controller runs the effects in order, and
feeds their outcomes back as events. Time enters as ``Tick``. So every interleaving can be replayed from a seed.

A model is unloaded, sizing, loading, loaded, freeing, parked or failed. All requests and operations of a model wait in
one queue. Two rules decide what is loaded and freed on request:

1. The head of a queue is served as soon as its model allows it (``reconcile._serve``):

    request   loaded: a lease.      unloaded: load, wait.   failed: refused until the back-off is over, then load.
    reload    loaded: done.         unloaded or failed: load, wait.
    unload    unloaded: done.       loaded: free, at once or after the last lease.   loading: wait.

2. The most urgent model that is waited for gets its memory (``allocation``, ``eviction``): from what is free, then from
   idle models, then from busy ones that have been loaded long enough. Models that are loading or pinned stay, and more
   urgent ones until the waiter has waited for ``WaitPolicy.patience_s``.

A model that may be put in several placements is loaded in the one that costs least time with what has to go for it
(``choice``). A load that a device lacks memory for is tried once more in another placement (``failures``). An unused
model moves to a faster placement that has room, which delays nobody (``reconcile._move``).

Which function decides that a model is freed, by the ``FreeReason`` of the effect:

    asked     reconcile._serve: an unload is at the head of its queue.
    idle      reconcile._unload_idle: it has had no request for too long.
    retired   reconcile._unload_idle: it is no longer configured, and unused.
    room      allocation._claim, _drain: another model gets its memory, by a plan of ``choice`` and ``eviction``.
    budget    reconcile._relieve: more is used than the budget has. Unused models go, parked ones first, then the one
              that was used longest ago, not in the order of ``eviction_rank``.
    move      reconcile._move: a faster placement has room. allocation.allocate: parked weights do not fit where they
              are.
    changed   changed_files.written_over: a file that it has mapped was written over.
    closing   transitions._close: the server stops.

An engine that dies frees its memory by itself (``deaths``).
"""

from modelyard.yard.residency.machine import advance_clock, step

__all__ = ["advance_clock", "step"]
