"""Logits that are no numbers are told from those that are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from modelyard.engine.generation.finite import peaks

INF = np.inf


@pytest.mark.parametrize("logits", [[0.0, -3.5, 12.0], [1e30, -1e30], [-INF, 0.5], [0.0]])
def test_a_token_can_be_chosen(logits: list[float]) -> None:
    with warnings.catch_warnings(action="error"):
        assert peaks(np.array([logits, logits], np.float32)) == 2 * [int(np.argmax(logits))]


@pytest.mark.parametrize("logits", [[np.nan, 1.0], [1.0, INF], [-INF, -INF], [np.nan], [-INF, np.nan, 3.0]])
def test_no_token_can_be_chosen(logits: list[float]) -> None:
    with warnings.catch_warnings(action="error"):
        assert peaks(np.array([logits], np.float32)) == [None]


def test_rows_are_looked_at_one_by_one() -> None:
    assert peaks(np.array([[1.0, 2.0], [np.nan, 1.0], [3.0, 3.0]], np.float32)) == [1, None, 0]
