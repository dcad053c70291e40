"""How many cells layers with a sliding window have."""

from __future__ import annotations

import pytest

from modelyard.engine.windows import full_layer_period, window_cells


@pytest.mark.parametrize(
    ("cells", "sequences", "expected"),
    [(32_768, 8, 8 * 512 + 512), (32_768, 1, 1024), (2048, 8, 2048), (32_768, 60, 31_232), (32_768, 100, 32_768)],
)
def test_each_sequence_has_its_window_and_a_step_is_behind_them(cells: int, sequences: int, expected: int) -> None:
    assert window_cells(512, cells=cells, sequences=sequences, step_tokens=512) == expected


def test_llama_cpp_rounds_the_cells_up() -> None:
    assert window_cells(128, cells=4096, sequences=3, step_tokens=64) == 512


def test_a_file_may_have_another_period_than_its_architecture() -> None:
    assert full_layer_period("gemma3", None) == 6
    assert full_layer_period("gemma3", 5) == 5
    assert full_layer_period("llama", 5) is None
