"""The line of a problem, as a terminal shows it."""

import pytest
from rich.cells import cell_len

from modelyard.config import excerpt as excerpts
from modelyard.config.excerpt import MAX_CELLS, excerpt


def shown(line, column, length, *notes):
    return excerpt([line], 1, column, length, notes).splitlines()


def test_the_mark_is_under_the_value_and_notes_follow():
    assert shown('port = "80"', 8, 4, "help: Write 80.") == [
        "  |",
        '1 | port = "80"',
        "  |        ^^^^",
        "  = help: Write 80.",
    ]


@pytest.mark.parametrize("before", ["\t", "模型", "é", "\t名\t"])
def test_tabs_and_wide_characters_keep_the_mark_under_the_value(before):
    _, line, mark = shown(f"{before}x = 5", len(before) + 5, 1)
    assert cell_len(line[: line.index("5")]) == mark.index("^")


def test_a_long_line_is_cut_around_the_mark():
    _, line, mark = shown("a" * 500 + "VALUE" + "b" * 500, 501, 5)
    text = line.removeprefix("1 | ")
    assert cell_len(text) <= MAX_CELLS
    assert text.startswith("…")
    assert text.endswith("…")
    assert line[mark.index("^") :].startswith("VALUE")
    assert mark.count("^") == 5


@pytest.mark.parametrize("wide", ["a", "名"])
@pytest.mark.parametrize("before", [0, 50, 10_000])
@pytest.mark.parametrize("after", [0, 50, 10_000])
@pytest.mark.parametrize("length", [1, 60, 10_000])
def test_a_line_of_any_length_is_cut_in_the_same_way(monkeypatch, wide, before, after, length):
    line = wide * before + "V" * length + wide * after
    found = shown(line, before + 1, length)
    monkeypatch.setattr(excerpts, "_NEAR_CHARS", len(line))
    assert found == shown(line, before + 1, length)


def test_what_moves_the_cursor_is_not_shown():
    _, line, _ = shown("a = '\x1b[31m\u202e'", 5, 1)
    assert "\x1b" not in line
    assert "\u202e" not in line


@pytest.mark.parametrize(
    "line",
    [
        'api_keys = ["sk-secret", 5]',
        'api_key = "secret"',
        "key = secret",
        "  { key = 'secret' }",
        'keys = [{ name = "a", key = "secret", x = 1 }]',
        "token_source = 'literal:secret'",
        'hf_token: "secret"',
        "password=secret",
        "x = 'sk-secret-of-somebody'",
    ],
)
def test_a_secret_is_not_shown(line):
    for column in range(1, len(line)):
        assert "secret" not in excerpt([line], 1, column, 3, ())


def test_a_secret_in_a_list_over_several_lines_is_not_shown():
    lines = ["[server]", "api_keys = [", "  'secret',", "  5,", "]", "[[models]", "alias = 'shown'"]
    assert "secret" not in excerpt(lines, 3, 3, 8, ())
    assert "shown" in excerpt(lines, 7, 9, 7, ())
    assert "[[models]" in excerpt(lines, 6, 9, 1, ())


def test_keys_that_only_sound_like_secrets_are_shown():
    for line in ("max_tokens = 'x'", "ssl_keyfile = 5", "key_env = 5", "tokens_per_minute = 'y'", "batch_tokens = 1"):
        assert line in excerpt([line], 1, 1, 1, ())
