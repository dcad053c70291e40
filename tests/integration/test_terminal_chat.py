"""The chat as its user meets it: a program in a terminal, most often on a server whose models say what a test says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from modelyard.config import validate_config
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Cancel, Submit
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngine, ScriptedEngines
from support.server import RunningServer, serving
from support.terminal import Terminal, terminal

OFFLINE = {"MODELYARD_HOST": "", "MODELYARD_API_KEY": ""}


@dataclass
class Scripted:
    """A server whose models say what a test has them say, each message at its own time."""

    server: RunningServer
    engines: ScriptedEngines

    @property
    def engine(self) -> ScriptedEngine:
        return self.engines.of("m")[-1]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    folder = tmp_path_factory.mktemp("scripted")
    write(folder / "tiny.gguf", tiny_model())
    models = [{"model_id": "./tiny.gguf", "alias": name} for name in ("m", "n")]
    engines = ScriptedEngines()
    with serving(validate_config({"models": models}, source="test", base=folder), engines.make_handle) as server:
        yield Scripted(server, engines)
    assert engines.end()


@pytest.fixture
def run(scripted: Scripted, tmp_path: Path) -> Callable[..., AbstractContextManager[Terminal]]:
    """Runs the chat with model m in a terminal."""
    environ = {**OFFLINE, "XDG_STATE_HOME": str(tmp_path)}
    return partial(terminal, "run", "m", "--url", scripted.server.url, **environ)


def submitted(engine: ScriptedEngine, number: int) -> list[str]:
    """The contents of the messages of the ``number``-th conversation that an engine was sent, as soon as it is."""
    submit = engine.heard(Submit, number)[number - 1]
    assert isinstance(submit, Submit)
    assert isinstance(submit.prompt, Chat)
    return [str(message["content"]) for message in submit.prompt.messages]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_chat_from_its_first_line_to_its_last(
    columns: int, scripted: Scripted, run: Callable[..., AbstractContextManager[Terminal]]
) -> None:
    engine = scripted.engine
    earlier, cancelled = (len(engine.heard(kind, 0)) for kind in (Submit, Cancel))
    answer = "Some words that are long enough to be wrapped at forty columns."
    with run(columns=columns) as chat:
        chat.wait_for("on the server at", ">>> ")
        chat.paste("one\ntwo\nthree")
        chat.type("\r")
        assert submitted(engine, earlier + 1) == ["one\ntwo\nthree"]
        engine.say("**Yes.** ", answer)
        chat.wait_for("columns.")
        # What is typed during an answer is not shown in it, and is not lost.
        chat.type("/set temp 500\r/stat\r")
        engine.finish()
        chat.wait_for("error: temperature must be", "/stats")
        chat.enter('"""four')
        chat.enter('five"""')
        assert submitted(engine, earlier + 2) == ["one\ntwo\nthree", f"**Yes.** {answer}", "four\nfive"]
        engine.say("An answer that is stopped")
        chat.wait_for("that is stopped")
        chat.type("\x03")
        chat.wait_for("(stopped)")
        chat.type("\x03")
        chat.wait_for("Ctrl-C again")
        chat.type("\x03")
        assert chat.end() == 0
    assert f"Yes. {answer}" in " ".join(chat.text.split())
    assert all(len(line) <= columns for line in chat.lines)
    # The cancelled sequence has left the engine before the next test speaks.
    engine.heard(Cancel, cancelled + 1)


def test_a_terminal_without_colours_gets_none(
    scripted: Scripted, run: Callable[..., AbstractContextManager[Terminal]]
) -> None:
    engine = scripted.engine
    earlier = len(engine.heard(Submit, 0))
    with run(columns=40, NO_COLOR="1") as chat:
        chat.wait_for(">>> ")
        chat.enter("Hi")
        submitted(engine, earlier + 1)
        engine.say("Some **bold** words, wrapped at forty columns.")
        engine.finish()
        chat.wait_for("**bold**", "\ncolumns.")
        chat.type("\x04")
        assert chat.end() == 0
    assert "Some **bold** words, wrapped at forty\ncolumns." in chat.text
    colours = re.findall(rb"\x1b\[[0-9;]*(?:3[0-7]|9[0-7]|[34]8;)[0-9;]*m", chat.raw)
    assert colours == []


def test_a_chat_with_real_weights_in_its_own_process(weights: dict[str, Path], tmp_path: Path) -> None:
    options = ("--local", "--ctx", "256", "--max-tokens", "8", "--ignore-eos", "on")
    with terminal("run", str(weights["smollm2"]), *options, XDG_STATE_HOME=str(tmp_path)) as chat:
        chat.wait_for("in this process", ">>> ")
        chat.enter("Hello!")
        chat.wait_for("(cut off after 8 tokens")
        chat.enter("/tokens")
        chat.wait_for("tokens of 256")
        chat.enter("/bye")
        assert chat.end() == 0
    assert "Hello!" in (tmp_path / "modelyard" / "chat_history").read_text()
