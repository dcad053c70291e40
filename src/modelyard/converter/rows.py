"""Finds the source of each row of a converted tensor.

A converter permutes, splits and stacks weights. Blocks of quantised weights can be moved the same way if rows stay
whole. To find the moves, the converter gets one tensor filled with row numbers and one filled with column numbers, and
the outcomes are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

# Integers below this bound are exact in single precision, in which converters compute.
_MAX_ROWS: Final = 2**24

Modify = Callable[[torch.Tensor], Iterable[tuple[str, torch.Tensor]]]
Rows = NDArray[np.int64]


def row_sources(shape: tuple[int, ...], by_rows: Modify, by_columns: Modify) -> dict[str, Rows | None]:
    """Return, for each tensor that a converter makes of weights of ``shape``, the source row of each of its rows.

    Rows are counted over all dimensions but the last. The value is None if rows are not kept whole or change values.

    Args:
        shape: shape of the weights.
        by_rows: the converter, called with row numbers.
        by_columns: an equal converter in the same state, called with column numbers; a converter may keep its input.
    """
    count, width = math.prod(shape[:-1]), shape[-1]
    if len(shape) < 2 or max(count, width) >= _MAX_ROWS:
        return {}
    # Numbered from 1, because multiplication would not change a 0.
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


def _is_same(output: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether a converter returned its input unchanged, as it mostly does with the largest weights, the embeddings."""
    return (output.data_ptr(), output.shape, output.stride()) == (given.data_ptr(), given.shape, given.stride())


def _modified(modify: Modify, numbers: torch.Tensor) -> dict[str, torch.Tensor] | None:
    # Some converters call view(), which fails on the expanded tensor with its repeated numbers; the copy supports it.
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
