"""What a converter does to rows is found out by showing it tensors of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

SHAPE = (8, 6)
# A tensor of torch.
Tensor = Any
Change = Callable[[Tensor], Any]


def row_sources(*given: Any) -> dict[str, Any]:
    # Imported by the process that runs these tests: it imports torch, which takes seconds.
    from modelyard.converter import rows

    return rows.row_sources(*given)


def sources(change: Change, shape: tuple[int, ...] = SHAPE) -> list[Any]:
    def modify(numbers: Tensor) -> list[tuple[str, Tensor]]:
        made = change(numbers)
        return [(str(at), tensor) for at, tensor in enumerate(made if isinstance(made, (list, tuple)) else [made])]

    found = row_sources(shape, modify, modify)
    return [None if rows is None else rows.tolist() for rows in found.values()]


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda w: w, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (lambda w: w.flip(0), [[7, 6, 5, 4, 3, 2, 1, 0]]),
        (lambda w: w.reshape(2, 2, 2, 6).swapaxes(1, 2).reshape(8, 6), [[0, 2, 1, 3, 4, 6, 5, 7]]),
        (lambda w: w.view(2, 4, 6).transpose(0, 1).reshape(8, 6), [[0, 4, 1, 5, 2, 6, 3, 7]]),
        (lambda w: w.split([2, 6]), [[0, 1], [2, 3, 4, 5, 6, 7]]),
        (lambda w: w[[3, 3]], [[3, 3]]),
        (lambda w: w.reshape(2, 4, 6), [[[0, 1, 2, 3], [4, 5, 6, 7]]]),
        (lambda _: [], []),
    ],
)
def test_rows_that_stay_whole_are_followed(change: Change, rows: list[Any]):
    assert sources(change) == rows


def test_experts_are_followed_through_all_of_their_dimensions():
    assert sources(lambda w: w.flip(0), (2, 3, 4)) == [[[3, 4, 5], [0, 1, 2]]]


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.T,
        lambda w: w.flip(1),
        lambda w: w[:, :3],
        lambda w: w + 1,
        lambda w: w * 2,
        lambda w: -w,
        lambda w: w - w.mean(),
        lambda w: w * w.new_tensor(range(8)).unsqueeze(1),
        lambda w: w.reshape(4, 12),
        lambda w: w.half(),
        lambda w: w.flatten(),
        lambda w: w.new_zeros(w.shape),
        lambda w: w.repeat(1, 2),
    ],
)
def test_rows_that_do_not_stay_whole_are_told_apart(change: Change):
    assert sources(change) == [None]


def test_a_single_column_is_no_exception():
    assert sources(lambda w: w * 2, (8, 1)) == [None]


def test_what_is_no_matrix_or_too_large_to_count_is_not_followed():
    assert sources(lambda w: w, (8,)) == []
    assert sources(lambda w: w, (2**24, 1)) == []


def test_a_converter_that_cannot_be_shown_numbers_is_not_followed():
    def refuses(_: Tensor) -> Any:
        raise RuntimeError("only real weights")

    assert sources(refuses) == []


def test_rows_are_counted_exactly_up_to_the_largest_number():
    count = 2**24 - 1
    (rows,) = row_sources((count, 1), lambda w: [("w", w.flip(0))], lambda w: [("w", w.flip(0))]).values()
    assert rows is not None
    assert np.array_equal(rows, np.arange(count)[::-1])
