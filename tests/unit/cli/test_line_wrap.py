"""Messages and help in a narrow terminal: lines break between words, and what is there to be copied stays whole."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.commands import COMMANDS
from modelyard.cli.line_wrap import continued, wrapped
from support.terminal import terminal

PATH = "/models/a folder/with-a-name-that-no-line-of-forty-columns-holds.gguf"


def test_a_message_breaks_between_words() -> None:
    message = "The model 'qwen' does not exist. Known: smol, gemma."
    assert wrapped(message, 30, first=7) == "The model 'qwen' does\nnot exist. Known: smol, gemma."


def test_a_path_stays_whole_also_with_blanks_and_where_no_line_holds_it() -> None:
    assert wrapped(f"The path '{PATH}' does not exist.", 40).split("\n") == [
        "The path",
        f"'{PATH}'",
        "does not exist.",
    ]
    assert wrapped("There is no model 'a b' here.", 22) == "There is no model\n'a b' here."


def test_a_sentence_in_quotes_that_no_line_holds_is_broken() -> None:
    assert wrapped("'one two three four'", 10) == "'one two\nthree\nfour'"


def test_a_command_at_the_end_stays_whole_if_a_line_holds_it() -> None:
    assert wrapped("Write: modelyard serve ./model.gguf", 30) == "Write:\nmodelyard serve ./model.gguf"
    assert wrapped("Write: modelyard serve ./model.gguf", 20) == "Write: modelyard\nserve ./model.gguf"


def test_lines_of_files_and_of_commands_stay_as_they_are_and_their_notes_are_wrapped() -> None:
    message = (
        "a.toml: wrong.",
        "3 | max_seq_len = 'many tokens'",
        "  |       ^^^",
        "  = help: write a number",
        "  modelyard stop --url x",
    )
    assert wrapped("\n".join(message), 20).split("\n") == [
        "a.toml: wrong.",
        "3 | max_seq_len = 'many tokens'",
        "  |       ^^^",
        "  = help: write a",
        "    number",
        "  modelyard stop --url x",
    ]


def test_wide_characters_count_twice() -> None:
    assert wrapped("模型 模型 模型", 9) == "模型 模型\n模型"


def test_an_example_goes_on_as_a_shell_reads_it() -> None:
    assert continued("modelyard run m 'Why is it?' --top-k 4", 30, indent=2) == [
        "  modelyard run m \\",
        "      'Why is it?' --top-k 4",
    ]


@pytest.mark.parametrize("command", ["", *(command.name for command in COMMANDS)])
def test_help_has_the_same_words_at_every_width(command: str) -> None:
    def words(columns: int) -> list[str]:
        done = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": str(columns)})
        assert done.exit_code == 0
        return re.sub(r" \\\n", " ", done.stdout).split()

    assert words(40) == words(24) == words(200)


def test_a_group_without_a_command_shows_its_help_and_no_error() -> None:
    done = CliRunner().invoke(app, ["cache"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("List and delete")


@pytest.mark.parametrize("columns", [40, 80])
def test_an_error_in_a_terminal_is_broken_between_words(columns: int) -> None:
    line = ("serve", "a.toml", "b.gguf")
    piped = CliRunner().invoke(app, list(line)).stderr
    with terminal(*line, columns=columns) as shown:
        assert shown.end() == 2
    # A word that the terminal has broken would be two.
    assert shown.text.split() == piped.split()


def test_an_error_that_is_piped_is_one_line() -> None:
    done = CliRunner().invoke(app, ["serve", "a.toml", "b.gguf"], env={"COLUMNS": "40"})
    assert len(done.stderr.splitlines()) == 2
