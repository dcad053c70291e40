"""Patterns keep what llguidance can express; what they lose is named."""

from __future__ import annotations

import pytest
from llguidance import LLMatcher, LLTokenizer

from modelyard.engine.formats.pattern import expressible


@pytest.mark.parametrize(
    ("pattern", "written", "dropped"),
    [
        ("^(?=.*[0-9])[a-z0-9]{4,8}$", "^[a-z0-9]{4,8}$", ["(?=...)"]),
        ("^(?!admin)(?=[)]x)\\w+$", "^\\w+$", ["(?!...)", "(?=...)"]),
        ("(?<=a(b[)]))c(?<!d)+", "c", ["(?<=...)", "(?<!...)"]),
        (r"\bfoo\b\B", "foo", [r"\b", r"\B"]),
        (r"(a|b)-\1", r"(a|b)-(?s:.*)", [r"\1"]),
        (r"(?<q>['])x\k<q>", r"(?<q>['])x(?s:.*)", [r"\k<q>"]),
        ("(?>a+)b", "(?:a+)b", ["(?>...)"]),
        (r"\Aa\cM\e\z", r"^a\x0d\x1b$", []),
        (r"[\b\]](?=x)?[]a]", r"[\x08\]][\]a]", ["(?=...)"]),
    ],
)
def test_what_cannot_be_expressed_is_left_out_and_named(pattern: str, written: str, dropped: list[str]) -> None:
    found = expressible(pattern)
    assert (found.pattern, list(found.dropped)) == (written, dropped)


@pytest.mark.parametrize(
    "pattern", [r"\p{L}+", "(?i)abc", "(?i:a)b", "a*?", r"\\b", "[(?=]", r"^\d{4}-\d\d$", "(?P<x>a)", r"\(?=", ""]
)
def test_what_can_be_expressed_stays(pattern: str) -> None:
    assert expressible(pattern) == (type(expressible(pattern)))(pattern)


@pytest.mark.parametrize("pattern", ["(?=", "[", "\\", "(?<!a", "(((", "[^", "\\c", "(?=[", r"\k<", "(?=a){2"])
def test_a_broken_pattern_ends(pattern: str) -> None:
    expressible(pattern)


@pytest.mark.parametrize(
    "pattern", ["^(?=.*[0-9])[a-z0-9]{4,8}$", r"\bfoo\b", r"(a)\1", r"\cA\Z", r"^(?!.*\.\.)[^@]+$", "(?>a)b", "[]]"]
)
def test_llguidance_reads_what_is_left(pattern: str) -> None:
    schema = {"type": "string", "pattern": expressible(pattern).pattern}
    assert not LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_json_schema(schema), log_level=0).is_error()
