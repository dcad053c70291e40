"""Which sizes the context of a model may have while it is loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from modelyard.hub import POOLED_KINDS
from modelyard.hub.select.limits import has_factors_by_context
from modelyard.yard.memory.cache_bytes import CONTEXT_STEP, context_cells, has_state
from modelyard.yard.memory.footprint import Choices, ContextSize
from modelyard.yard.runtime.fitting import with_context, with_model
from modelyard.yard.runtime.model_choices import choices_of
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles

SMALLEST_CELLS: Final = 512
"""KV cells of the smallest context, which hold a short question and its answer. Each size is twice the one before."""

MIN_SAVED_BYTES: Final = 32 << 20
"""What the smallest context has to save: for less, no stream has to pause while its context grows."""


def with_sizes(spec: ModelSpec, files: SpecFiles, choices: Choices) -> Choices:
    """Return the footprints with the sizes that the context may have, where it may have several.

    The context keeps its size on machines with devices, and for models that generate no text, keep a recurrent state,
    or compute otherwise with a longer context; also where prompts outlive engines, which would not fit a small one.

    Args:
        spec: the model.
        files: its files, and those of its draft model.
        choices: its footprints, with its whole context.
    """
    (whole, *others), header = choices, files.model.header
    cells = context_cells(header, spec.model.device.fixed_seq_len)
    least = max(SMALLEST_CELLS, -(-spec.config.runtime.batch_tokens // CONTEXT_STEP) * CONTEXT_STEP)
    is_fixed = (
        bool(others or whole.devices)
        or files.model.kind in POOLED_KINDS
        or has_state(header)
        or has_factors_by_context(header)
        or spec.config.memory.kv_keep != "off"
        or cells <= least
    )
    if is_fixed:
        return choices
    # The context of a draft model keeps its size, and adapters theirs.
    alone = SpecFiles(files.model, None)
    taken = {
        size: choices_of(with_model(spec, with_context(spec.model, size)), alone)[0].context_bytes
        for size in _doubled(least, cells)
    }
    if taken[cells] - taken[least] < MIN_SAVED_BYTES:
        return choices
    sizes = tuple(ContextSize(size, whole.context_bytes - taken[cells] + taken[size]) for size in taken)
    return (replace(whole, sizes=sizes, cells=cells),)


def _doubled(least: int, most: int) -> Iterator[int]:
    size = least
    while size < most:
        yield size
        size *= 2
    yield most
