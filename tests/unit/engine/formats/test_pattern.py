"""Patterns keep what llguidance can express; what they lose is named."""

from __future__ import annotations

import json

import pytest
from llguidance import LLMatcher, LLTokenizer

from modelyard.engine.formats.pattern import expressible

TOKENIZER = LLTokenizer("byte")


def matcher(pattern: str) -> LLMatcher:
    schema = {"type": "string", "pattern": expressible(pattern).pattern}
    return LLMatcher(TOKENIZER, LLMatcher.grammar_from_json_schema(schema), log_level=0)


def allows(pattern: str, text: str) -> bool:
    position = matcher(pattern)
    assert not position.is_error(), position.get_error()
    tokens = TOKENIZER.tokenize_str(json.dumps(text, ensure_ascii=False))
    return position.validate_tokens(tokens) == len(tokens) and position.consume_tokens(tokens)


@pytest.mark.parametrize(
    ("pattern", "written", "dropped"),
    [
        ("^(?=[0-9])[a-z0-9]{4,8}$", "^[a-z0-9]{4,8}$", ["(?=...)"]),
        ("^(?!admin)(?=[)]x)\\w+$", "^\\w+$", ["(?!...)", "(?=...)"]),
        ("(?<=a(b[)]))c(?<!d)+", "c", ["(?<=...)", "(?<!...)"]),
        (r"\bfoo\b\B", "foo", [r"\b", r"\B"]),
        (r"(a|b)-\1", r"(a|b)-(?s:.*)", [r"\1"]),
        (r"(?<q>['])x\k<q>", r"(['])x(?s:.*)", [r"\k<q>"]),
        ("(?>a+)b", "(?:a+)b", ["(?>...)"]),
        (r"\Aa\cM\e\z", r"^a\x0d\x1b$", []),
        (r"[\b\]](?=x)?[]a]", r"[\x08\]][\]a]", ["(?=...)"]),
        (r"a^b", "ab", ["^"]),
        (r"a(^b|c)", "a(b|c)", ["^"]),
        (r"(a$)b", "(a)b", ["$"]),
        (r"(^|b)?c", "(|b)?c", ["^"]),
        (r"^((a$)+|b)$", "^((a)+|b)$", ["$"]),
        (r"^*a", "a", ["^*"]),
        (r"(?m)^a$", "a", ["(?m)", "^", "$"]),
        (r"(?im:^a)", "(?i:a)", ["(?m)", "^"]),
        (r"a\X", "a(?s:.*)", [r"\X"]),
        (r"a\ud83d", "a(?s:.*)", [r"\ud83d"]),
        (r"a[]", "a", ["[]"]),
        (r"a(?#note)b", "ab", []),
    ],
)
def test_what_cannot_be_expressed_is_left_out_and_named(pattern: str, written: str, dropped: list[str]) -> None:
    found = expressible(pattern)
    assert (found.pattern, list(found.dropped)) == (written, dropped)


@pytest.mark.parametrize(
    "pattern", [r"\p{L}+", "(?i)abc", "(?i:a)b", "a*?", r"\\b", r"^\d{4}-\d\d$", r"\(?=", "", "^a$|^b$", "(^a|b$)"]
)
def test_what_can_be_expressed_stays(pattern: str) -> None:
    assert expressible(pattern) == (type(expressible(pattern)))(pattern)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"^[[({]$", "[({", "a"),
        (r"^[a&&b]$", "a&b", "c"),
        (r"^[a~~b]$", "a~b", "c"),
        (r"^[+--]$", "+,-", "."),
        (r"^[\w-.]$", "a-.", "/"),
        (r"^[a-\d]$", "a-5", "b"),
        (r"^[[:alpha:]]$", "a", "1"),
        (r"^[\b]$", "\b", "b"),
        (r"^[\1\i]$", "\x01i", "1"),
        (r"^[^\]]$", "a", "]"),
        (r"^[^]$", "a\n", ""),
        (r"^(?:[^][0-9]|[^])$", "a]", ""),
        (r"^(?:[]|[ab])$", "ab", "]|"),
        (r"^[^][]$", "a", "]["),
        (r"^[][a]$", "][a", "b"),
        (r"^[]\[]$", "][", "a"),
        (r"^\/$", "/", "a"),
        (r"^\<$", "<", "a"),
        (r"^\é$", "é", "e"),
        (r"^\0$", "\0", "0"),
        (r"^\cA$", "\x01", "A"),
        (r"^{$", "{", "a"),
        (r"^\d$", "1", "\u0661"),
        (r"^\w$", "a_", "é"),
        (r"^\s$", " \u00a0\ufeff", "\u0085"),
        (r"^[\s]$", " \ufeff", "\u0085"),
        (r"^[^\S]$", " \ufeff", "\u0085"),
        (r"^.$", "a\u0085", "\n\r\u2028"),
        (r"^(?s:.)$", "a\n", ""),
        (r"^\u{1f600}$", "😀", "a"),
        (r"^\ud83d\ude00$", "😀", "a"),
        (r"^[\ud83d\ude00a]$", "😀a", "b"),
        (r"^(?<a-b>x)$", "x", "y"),
        (r"^(?:(?<n>a)|(?<n>b))$", "ab", "c"),
        (r"^[\p{L}-]$", "é-", "1"),
    ],
)
def test_each_character_that_ecmascript_matches_is_matched_and_no_other(
    pattern: str, matching: str, other: str
) -> None:
    assert [text for text in matching if not allows(pattern, text)] == []
    assert [text for text in other if allows(pattern, text)] == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("^a{$", "a{"), ("^x{,5}$", "x{,5}"), ("^{foo}$", "{foo}"), ("^[^]*b$", "a\nb"), ("^a]$", "a]")],
)
def test_brackets_that_repeat_nothing_are_text(pattern: str, text: str) -> None:
    assert allows(pattern, text)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?=", "[", "\\", "(?<!a", "(((", "[^", "\\c", "(?=[", r"\k<", "(?=a){2", "[\\", "[a-", "(?", "(?<", "|"),
        *("^", "$", ")", "{", "[[:", "[]", "[^]", "[]]", "*", "a**", r"\u", r"\u{", r"\p{", "(?m"),
    ],
)
def test_a_broken_pattern_ends(pattern: str) -> None:
    expressible(pattern)


@pytest.mark.parametrize("part", ["(?#", "(?<", r"\k<", r"\p{"])
def test_the_time_for_a_pattern_grows_with_its_length(part: str) -> None:
    # In quadratic time this would take minutes.
    expressible(part * (200_000 // len(part)))


def test_a_comment_that_does_not_end_is_left_out() -> None:
    assert expressible("a(?#b").pattern == "a"


@pytest.mark.parametrize(
    "pattern",
    [
        "^(?=.*[0-9])[a-z0-9]{4,8}$",
        r"\bfoo\b",
        r"(a)\1",
        r"\cA\Z",
        r"^(?!.*\.\.)[^@]+$",
        "(?>a)b",
        "[]]",
        "^(^a)?b",
        "(a$)*",
    ],
)
def test_llguidance_reads_what_is_left(pattern: str) -> None:
    assert not matcher(pattern).is_error()
