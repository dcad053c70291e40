"""Texts of tools, cut to what a model may read of them."""

from __future__ import annotations

import pytest

from modelyard.agent.result_text import bounded_result, joined
from modelyard.agent.tools import ToolResult


@pytest.mark.parametrize(
    ("parts", "limit", "expected", "is_cut"),
    [
        (["short"], 5, "short", False),
        (["a\0b"], 5, "a\N{REPLACEMENT CHARACTER}b", False),
        (["a\ud800b"], 5, "a?b", False),
        (["ääää"], 5, "ää\n\n[The result was cut here: it has 8 bytes, and 5 are the limit.]", True),
        (["ab", "cd"], 5, "ab\ncd", False),
        (["ab", "cd", "e"], 5, "ab\ncd\n\n[The result was cut here: it has 7 bytes, and 5 are the limit.]", True),
        ([], 5, "", False),
    ],
)
def test_a_result_is_cut_and_says_so(parts: list[str], limit: int, expected: str, is_cut: bool) -> None:
    text, size = joined(parts, limit)
    assert bounded_result(text, size, limit, is_error=False) == ToolResult(expected, is_cut=is_cut)
