"""Marked text is text, whose marks follow each character.

Here the template writes characters of one alphabet and the content has those of another, so that each character of a
result shows what its mark must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engine.chat.marked_text import (
    MarkedText,
    by_template,
    from_runs,
    is_by_template,
    joined,
    runs_of,
    unmarked,
)

WRITTEN = set("aAß, \n")
PIECES = [*map(by_template, ("", "a", "aA", "ß", ",", " ", "\n", "a, ")), "", "b", "bB", "é", ";", "\t", "b;"]

MARKED = st.lists(st.sampled_from(PIECES), max_size=5).map(joined)
ANY = MARKED | st.sampled_from(PIECES)
COUNT = st.integers(-1, 3)
INDEX = st.sampled_from([None, -9, -2, -1, 1, 2, 3, 9])

# Two texts and three numbers give arguments to each.
OPERATIONS: dict[str, Callable[[Any, Any, Any, int, slice], Any]] = {
    "sum": lambda a, b, _c, _n, _s: a + b,
    "sum from the right": lambda a, b, _c, _n, _s: b + a,
    "product": lambda a, _b, _c, n, _s: a * n,
    "product from the right": lambda a, _b, _c, n, _s: n * a,
    "slice": lambda a, _b, _c, _n, s: a[s],
    "characters": lambda a, _b, _c, _n, _s: list(a),
    "backwards": lambda a, _b, _c, _n, _s: list(reversed(a)),
    "strip": lambda a, _b, _c, _n, _s: a.strip(),
    "strip characters": lambda a, b, _c, _n, _s: (a.strip(b), a.lstrip(b), a.rstrip(b)),
    "split": lambda a, _b, _c, n, _s: (a.split(), a.split(None, n), a.rsplit(None, n)),
    "split at a text": lambda a, b, _c, n, _s: (a.split(b or ",", n), a.rsplit(b or ",", n)),
    "lines": lambda a, _b, _c, _n, _s: (a.splitlines(), a.splitlines(True)),
    "partition": lambda a, b, _c, _n, _s: (a.partition(b or ","), a.rpartition(b or ",")),
    "replace": lambda a, b, c, n, _s: (a.replace(b, c), a.replace(b, c, n)),
    "replace a character": lambda a, b, c, n, _s: a.replace(b[:1], c, n),
    "remove": lambda a, b, _c, _n, _s: (a.removeprefix(b), a.removesuffix(b)),
    "remove a part of it": lambda a, _b, _c, n, _s: (a.removeprefix(a[:n]), a.removesuffix(a[n:])),
    "join": lambda a, b, c, n, _s: a.join([b, c, a] * n),
    "fill": lambda a, b, _c, _n, _s: (a + by_template(",%s,")) % (b,),
    "text of text": lambda a, _b, _c, _n, _s: str(a),
}


def results(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [text for part in value for text in results(part)]


def marks(text: str) -> list[bool]:
    return [is_by_template(text, at, at + 1) for at in range(len(text))]


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=50)
@given(st.data())
def test_an_operation_yields_what_it_yields_on_text_with_the_marks_of_its_characters(name: str, data: Any) -> None:
    a, b, c = data.draw(MARKED), data.draw(ANY), data.draw(ANY)
    n, part = data.draw(COUNT), data.draw(st.builds(slice, INDEX, INDEX, INDEX))
    operation = OPERATIONS[name]
    result = results(operation(a, b, c, n, part))
    assert result == results(operation(unmarked(a), unmarked(b), unmarked(c), n, part))
    for text in result:
        assert marks(text) == [character in WRITTEN for character in text]


@pytest.mark.parametrize("case", ["upper", "lower", "title", "capitalize"])
@pytest.mark.parametrize("text", ["aA bB", "aß", "éß"])
def test_letters_keep_their_marks_in_another_case(case: str, text: str) -> None:
    change = getattr(str, case)
    assert marks(getattr(by_template(text), case)()) == [True] * len(change(text))
    mixed = by_template(text) + "bé"
    is_longer = len(change(mixed)) > len(mixed)
    changed = getattr(mixed, case)()
    assert changed == change(unmarked(mixed))
    # Which of the letters became two is not known.
    assert marks(changed) == ([False] * len(changed) if is_longer else marks(mixed))


@pytest.mark.parametrize(
    ("pattern", "values"),
    [
        ("<%s>", "x"),
        ("<%s|%%|%s>", ("x", "y")),
        ("%(b)s, %(a)s", {"a": "x", "b": "y"}),
        ("%5s|%-5s|%.1s", ("x", "y", "zz")),
        ("%d %5.2f %r %x", (3, 1.5, "x", 255)),
        ("%*d", (5, 1)),
        ("%s", {"a": 1}),
        ("nothing", ()),
    ],
)
def test_a_filled_pattern_is_the_templates_but_for_its_values(pattern: str, values: Any) -> None:
    filled = by_template(pattern) % values
    assert filled == pattern % values
    letters = set("xyz0123456789")
    assert not any(mark for mark, character in zip(marks(filled), filled, strict=True) if character in letters)


def test_what_is_filled_in_keeps_its_own_marks() -> None:
    assert runs_of(by_template("<%s|%s>") % ("x", by_template("y"))) == [1, 1, 3]
    assert runs_of(by_template("%(a)s!") % {"a": "x"}) == [0, 1, 1]


@given(MARKED)
def test_marks_are_told_as_runs(text: MarkedText) -> None:
    again = from_runs(unmarked(text), runs_of(text))
    assert again == text
    assert marks(again) == marks(text)
    assert sum(runs_of(text)) == len(text)


@given(MARKED, st.integers(0, 9), st.integers(1, 9))
def test_a_part_is_the_templates_if_all_of_its_characters_are(text: MarkedText, start: int, length: int) -> None:
    if start + length <= len(text):
        assert is_by_template(text, start, start + length) == all(marks(text)[start : start + length])


@pytest.mark.parametrize(
    "unaware",
    [
        MarkedText,
        lambda text: text.center(9),
        lambda text: text.swapcase(),
        lambda text: f"{text}.",
        lambda text: text.encode().decode(),
        lambda text: text.translate({}),
        lambda text: ",".join([text]) + "",
    ],
)
def test_what_knows_nothing_of_marks_makes_content(unaware: Callable[[str], str]) -> None:
    assert not any(marks(unaware(by_template("aa"))))


def test_text_without_marks_is_content() -> None:
    assert runs_of("ab") == [0, 2]
    assert not is_by_template("ab", 0, 1)


def test_marked_text_is_a_key_like_any_text() -> None:
    marked: dict[str, int] = {by_template("a"): 1}
    assert marked["a"] == {"a": 1}[by_template("a")] == 1


@pytest.mark.parametrize("operation", [lambda text: text + 1, lambda text: 1 + text, lambda text: text * "x"])
def test_what_text_cannot_do_is_a_type_error(operation: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        operation(by_template("a"))
