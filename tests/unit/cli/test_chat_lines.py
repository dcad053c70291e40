"""What a line of the chat means, before anything is sent."""

from __future__ import annotations

import pytest

from modelyard.cli.chat.attachments import first_path, take_dropped
from modelyard.cli.chat.commands import COMMANDS, Command, Say, UnknownCommand, parse_line
from modelyard.cli.chat.lines import continues, unquoted, without_continuation
from modelyard.cli.chat.prompt import PlainPrompt


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("hello", False),
        ("", False),
        ('"""', True),
        ('"""one', True),
        ('"""one\ntwo"""', False),
        ('"""one\ntwo"""  ', False),
        ('/system """be brief', True),
        ('/set system """be brief', True),
        ('/system """be brief"""', False),
        ('he said """ aloud', False),
        ("a line \\", True),
        ("a path C:\\\\", False),
        ("\\", True),
        ("in the middle \\ of it", False),
        ("pasted \\\nlines", False),
    ],
)
def test_enter_begins_another_line_within_quotes_and_after_a_backslash(text: str, is_open: bool) -> None:
    assert continues(text) is is_open


def test_the_backslash_that_continues_a_line_is_not_sent() -> None:
    assert without_continuation("one \\") == "one \n"


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ('"""one\ntwo"""', "one\ntwo"),
        ('"""\none\n  two\n"""', "one\n  two"),
        ("  plain  ", "plain"),
        ('"""""', '""'),
        ('""""""', ""),
    ],
)
def test_quotes_are_not_part_of_the_text(text: str, inner: str) -> None:
    assert unquoted(text) == inner


def meaning(text: str, *files: str) -> object:
    return parse_line(text, files.__contains__)


def test_a_line_is_a_message_or_a_command() -> None:
    assert meaning("Why is the sky blue?") == Say("Why is the sky blue?")
    assert meaning("/set temperature 0.5") == Command("set", "temperature 0.5", "/set")
    assert meaning('/system """Be\nbrief"""') == Command("system", "Be\nbrief", "/system")
    assert meaning("/HELP") == Command("help", "", "/HELP")
    assert meaning("   ") is None
    assert meaning('""""""') is None


@pytest.mark.parametrize(
    ("typed", "name"), [("/?", "help"), ("/exit", "bye"), ("/quit", "bye"), ("/list", "models"), ("/reset", "clear")]
)
def test_words_of_other_chats_are_known(typed: str, name: str) -> None:
    assert meaning(typed) == Command(name, "", typed)


@pytest.mark.parametrize("word", ["exit", "quit", "bye", "Exit", " quit "])
def test_a_word_that_leaves_a_shell_leaves_the_chat_if_it_stands_alone(word: str) -> None:
    assert meaning(word) == Command("bye", "", word.strip())
    assert meaning(f"How do I {word} vim?") == Say(f"How do I {word} vim?")


def test_a_command_that_does_not_exist_is_not_sent_to_the_model() -> None:
    assert meaning("/stat") == UnknownCommand("/stat", "/stats")
    assert meaning("/xyzzy now") == UnknownCommand("/xyzzy", None)


def test_two_slashes_send_one() -> None:
    assert meaning("//etc/hosts is a file") == Say("/etc/hosts is a file")


def test_a_dropped_path_is_no_command() -> None:
    assert meaning("/tmp/a\\ b.png what is it?", "/tmp/a b.png") == Say("/tmp/a\\ b.png what is it?")
    assert meaning("/tmp/none.png what is it?") == UnknownCommand("/tmp/none.png", None)


def test_no_name_stands_for_two_commands() -> None:
    names = [name for command in COMMANDS for name in (command.name, *command.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "rest", "paths"),
    [
        ("what is ./cat.png?", "what is ?", ["cat.png"]),
        ("'/my pictures/a b.JPG' and this", "and this", ["/my pictures/a b.JPG"]),
        ('"/my pictures/a b.JPG"', "", ["/my pictures/a b.JPG"]),
        ("/my\\ pictures/a\\ b.JPG hear", "hear", ["/my pictures/a b.JPG"]),
        ("file:///my%20pictures/a%20b.JPG", "", ["/my pictures/a b.JPG"]),
        ("./cat.png ./talk.wav compare", "compare", ["cat.png", "talk.wav"]),
        ("cat.png is a name", "cat.png is a name", []),
        ("./none.png", "./none.png", []),
        ("http://host/cat.png", "http://host/cat.png", []),
        ("keep  my\n\n  indent", "keep  my\n\n  indent", []),
    ],
)
def test_paths_of_images_and_sound_in_a_message_are_taken_out(text: str, rest: str, paths: list[str]) -> None:
    files = {"talk.wav", "/my pictures/a b.JPG", "cat.png"}
    assert take_dropped(text, files.__contains__) == (rest, paths)


@pytest.mark.parametrize(
    ("argument", "path", "text"),
    [
        ("a.png", "a.png", ""),
        ("a.png what is it?", "a.png", "what is it?"),
        ("'a b.png' what", "a b.png", "what"),
        ("a\\ b.png what", "a b.png", "what"),
        ("", "", ""),
    ],
)
def test_the_first_argument_of_a_command_is_a_path(argument: str, path: str, text: str) -> None:
    assert first_path(argument) == (path, text)


def test_lines_of_another_program_go_on_after_quotes_and_a_backslash(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["one \\", "two", '"""three', 'four"""']
    prompt = PlainPrompt(lambda shown: f"{shown}{lines.pop(0)}")
    assert prompt.ask("hint") == "one \ntwo"
    assert unquoted(prompt.ask("hint")) == "three\nfour"
    assert capsys.readouterr().out == ""
