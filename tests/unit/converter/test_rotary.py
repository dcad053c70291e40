"""The order of rows that a partly rotated head has in GGUF."""

from __future__ import annotations

from typing import Any

from modelyard.converter.rotary import paired


def test_rows_that_are_rotated_together_become_neighbours_in_each_head(torch: Any) -> None:
    # Two heads of six rows, of which the first four are rotated: 0 with 2, and 1 with 3.
    rows = torch.arange(12).reshape(12, 1)
    assert paired(rows, heads=2, rotated=4).flatten().tolist() == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]


def test_a_wholly_rotated_head_is_paired_as_the_converter_does_it(torch: Any) -> None:
    rows = torch.arange(8).reshape(8, 1)
    assert paired(rows, heads=1, rotated=8).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
