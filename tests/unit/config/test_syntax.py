"""Mistakes in the syntax of TOML: all of a document, with their places and what to write."""

import pytest

from modelyard.config.syntax import MAX_MISTAKES, parse


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("model_id = qwen", (1, 12, 4), "Put it in quotes"),
        ("budget = 16GiB", (1, 10, 5), "Put it in quotes"),
        ("pinned = True # c", (1, 10, 4), "small letters"),
        ("alias = ", (1, 9, 1), "Write a value"),
        ("alias = null", (1, 9, 4), "Remove the line"),
        ("port: 80", (1, 5, 1), "key = value"),
        ('path = "C:\\models\\new.gguf"', (1, 11, 1), "single quotes"),
        ("a = “x”", (1, 5, 3), "straight quotes"),
        ("// a", (1, 1, 1), "begins with #"),
        ("[server", (1, 8, 1), "[name]"),
        ("[[models]", (1, 9, 1), "[[name]]"),
        ("a = 1\na = 2", (2, 1, 1), "line 1"),
        ("[server]\n\n[server]", (3, 1, 8), "line 1"),
        ("a = [\n 1,\n\n[server]\nport = 1", (1, 5, 1), "Close it"),
        ("a = '''\nb\n", (1, 5, 1), "Close it"),
        ('a = "b\nc = 1', (1, 7, 1), "Close the quotes"),
    ],
)
def test_a_mistake_has_its_place_and_says_what_to_write(text, place, hint):
    (mistake,) = parse(text).mistakes
    assert (mistake.line, mistake.column, mistake.length) == place
    assert hint in mistake.hint


def test_all_mistakes_are_found_and_the_rest_is_read():
    parsed = parse("a = x\n[server]\nb = [1,\nport = 1\n[[models]\nc = 3 4\nd = 5\n")
    assert [mistake.line for mistake in parsed.mistakes] == [1, 3, 5, 6]
    assert parsed.values == {
        "a": False,
        "server": {"b": False, "port": 1},
        "models": [{"c": False, "d": 5}],
    }
    assert parsed.repaired == {1, 3, 5, 6}
    assert len(parsed.text.split("\n")) == 8


def test_a_document_without_mistakes_is_what_it_is():
    parsed = parse('a = "x"\n')
    assert (parsed.values, parsed.mistakes, parsed.repaired) == ({"a": "x"}, (), frozenset())


def test_the_number_of_mistakes_is_bounded_and_so_is_the_work():
    assert len(parse("\n".join(f"k{number} = x" for number in range(200))).mistakes) == MAX_MISTAKES + 1
    assert len(parse("a = x\n" + "# long\n" * 150_000 + "b = y\n").mistakes) <= 2


@pytest.mark.parametrize(
    "text", ["=\n" * 5, "]\n[\n", '"""', "[[[[", "a = {\n}x\n", "\x00", "a.b.c = 1\na = 2\na.b = 3"]
)
def test_every_text_comes_to_an_end(text):
    assert parse(text).mistakes
