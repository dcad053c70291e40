"""Where the rows of a converted tensor come from.

A converter permutes, splits and stacks weights. Blocks of quantised weights can follow it as long as rows stay whole:
it is shown a tensor whose rows say their numbers, and one whose columns do, and what comes out is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

# Numbers below it are exact in single precision, which converters compute in.
_MAX_ROWS: Final = 2**24

Modify = Callable[[torch.Tensor], Iterable[tuple[str, torch.Tensor]]]
Rows = NDArray[np.int64]


def row_sources(shape: tuple[int, ...], by_rows: Modify, by_columns: Modify) -> dict[str, Rows | None]:
    """For each tensor that a converter makes of weights of ``shape``: the row that each of its rows was.

    Rows are counted over all dimensions but the last. None where rows are not kept whole, or are computed with.

    Args:
        shape: of the weights.
        by_rows: the converter.
        by_columns: the same converter in the same state, as it may keep what it was shown.
    """
    count, width = math.prod(shape[:-1]), shape[-1]
    if len(shape) < 2 or max(count, width) >= _MAX_ROWS:
        return {}
    # From one, as nothing times zero is zero.
    numbers = torch.arange(1, count + 1, dtype=torch.float32).reshape(*shape[:-1], 1).expand(shape)
    rows = _modified(by_rows, numbers)
    columns = _modified(by_columns, torch.arange(1, width + 1, dtype=torch.float32).expand(shape))
    if rows is None or columns is None:
        return {}
    return {
        name: _all_rows(shape) if _is_same(rows[name], numbers) else _compare(rows[name], columns[name], count, width)
        for name in rows
        if name in columns
    }


def _all_rows(shape: tuple[int, ...]) -> Rows:
    return np.arange(math.prod(shape[:-1])).reshape(shape[:-1])


def _is_same(made: torch.Tensor, shown: torch.Tensor) -> bool:
    """Whether a converter has left weights alone; the largest, which are embeddings, it mostly does."""
    return (made.data_ptr(), made.shape, made.stride()) == (shown.data_ptr(), shown.shape, shown.stride())


def _modified(modify: Modify, numbers: torch.Tensor) -> dict[str, torch.Tensor] | None:
    # Some converters look at tensors in another shape, which those cannot have that repeat one number.
    for view in (numbers, numbers.contiguous()):
        try:
            return dict(modify(view))
        except RuntimeError:
            continue
    return None


def _compare(rows: torch.Tensor, columns: torch.Tensor, count: int, width: int) -> Rows | None:
    if rows.shape != columns.shape or rows.dim() < 2 or rows.shape[-1] != width:
        return None
    if rows.dtype != torch.float32:
        return None
    if not bool((columns == torch.arange(1, width + 1, dtype=columns.dtype)).all()):
        return None
    first = rows[..., :1]
    if not bool((rows == first).all()):
        return None
    sources: Any = first.squeeze(-1).to(torch.float64).numpy() - 1
    if not ((sources == np.floor(sources)) & (sources >= 0) & (sources < count)).all():
        return None
    numbers: Rows = sources.astype(np.int64)
    return numbers
