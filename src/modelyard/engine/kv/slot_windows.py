"""What layers with a sliding window hold of each slot, after steps and where a context gets another size."""

from __future__ import annotations

from modelyard.engine.kv.cache import KvCache, Slot
from modelyard.engine.llama import Context
from modelyard.engine.settings import CHECKPOINTS, PARKED_PART


def find_shortest(cache: KvCache, context: Context, window: int) -> None:
    """Find out how far each slot can be cut back, between steps: layers with a sliding window lose cells.

    Args:
        cache: accounting of the cells.
        context: the context whose cells it accounts for.
        window: as for ``KvOffload``.
    """
    if window:
        for slot in cache.slots:
            if slot.tokens:
                cache.record_first(slot, context.first_position(slot.index), window)


def checkpoint_limit(context: Context) -> int:
    """Return the host memory that checkpoints may take, in bytes; see ``yard.memory.cache_bytes.parked_bytes``.

    Those of windows take no more than what windows spare. Models that can be trimmed park prefixes, too.
    """
    states = CHECKPOINTS * context.checkpoint_bytes
    if not context.can_trim:
        return context.allocated_bytes // PARKED_PART + states
    limit = min(states, context.spared_bytes)
    return limit if limit >= context.checkpoint_bytes else 0


def adapt_to_windows(cache: KvCache, context: Context) -> list[Slot]:
    """After the context got another size: have slots share no cells of windows, where windows have become short.

    Returns:
        The slots that llama.cpp had no cells for: their windows are lost.
    """
    if cache.checkpoints is not None and cache.can_trim:
        cache.checkpoints.limit(checkpoint_limit(context))
    becomes_short = context.has_short_windows and not cache.has_short_windows
    cache.has_short_windows = context.has_short_windows
    if not becomes_short:
        return []
    lost = []
    for slot in cache.slots:
        if cache.own_cells(slot) < len(slot.cells):
            try:
                context.own_window(slot.index)
            except RuntimeError:
                lost.append(slot)
    return lost
