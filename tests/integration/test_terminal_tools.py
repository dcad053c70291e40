"""Tools in the terminal chat, as its user meets them: calls, approvals by key, and Ctrl-C while a tool runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from modelyard.config import validate_config
from modelyard.protocol.requests import Submit
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_tools import Gate, ScriptedTools, add, server_tool
from support.server import RunningServer, serving
from support.terminal import Terminal, terminal
from support.tool_turns import HERMES, call, messages_of

OFFLINE = {"MODELYARD_HOST": "", "MODELYARD_API_KEY": ""}


@dataclass
class Scripted:
    """A server whose model calls the tool that the message names, and then answers with its result."""

    server: RunningServer
    gate: Gate


def answer(submit: Submit) -> list[str]:
    last = messages_of(submit)[-1]
    if last["role"] == "tool":
        return [f"The tool says: {last['content']}."]
    return ["Let me see.", *(call(f"calc_{name}", a=1, b=2) for name in str(last["content"]).split())]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    folder = tmp_path_factory.mktemp("scripted")
    write(folder / "tiny.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "./tiny.gguf", "alias": "m"}]}, source="test", base=folder)
    engines = ScriptedEngines(answer=answer, output_format=HERMES)
    gate = Gate()
    tools = ScriptedTools(
        server_tool("add", add), server_tool("asks", add, needs_approval=True), server_tool("hangs", gate)
    )
    with serving(config, engines.make_handle, tools=[tools]) as server:
        yield Scripted(server, gate)
    assert engines.end()


Run = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture
def run(scripted: Scripted, tmp_path: Path) -> Run:
    """Runs the chat with model m in a terminal."""
    return partial(terminal, "run", "m", "--url", scripted.server.url, **OFFLINE, XDG_STATE_HOME=str(tmp_path))


def words(shown: str) -> str:
    return " ".join(shown.split())


@pytest.mark.parametrize(("columns", "environ"), [(40, {}), (80, {}), (40, {"NO_COLOR": "1"})])
def test_a_call_and_its_result_are_shown(columns: int, environ: dict[str, str], run: Run) -> None:
    with run(columns=columns, **environ) as chat:
        chat.wait_for(">>> ")
        chat.enter("add")
        shown = words(chat.wait_for("tool says: 3"))
        assert 'Let me see. -> calc_add {"a": 1, "b": 2} <- calc_add 0.0 s: 3 The tool says: 3.' in shown
        assert all(len(line) <= columns for line in chat.lines)
        chat.enter("/bye")
        assert chat.end() == 0


@pytest.mark.parametrize("columns", [40, 80])
def test_a_call_is_approved_or_denied_by_a_key(columns: int, run: Run) -> None:
    with run(columns=columns) as chat:
        chat.wait_for(">>> ")
        chat.enter("asks")
        assert "calc_asks of calc needs your approval." in words(chat.wait_for("y: yes"))
        chat.type("y")
        chat.wait_for("tool says: 3")
        before = len(chat.lines)
        chat.enter("asks")
        chat.wait_for("y: yes", after=before)
        chat.type("n\r")
        shown = words(chat.wait_for("tool says:", after=before))
        assert "calc_asks is denied." in shown
        assert "the user denied it" in shown
        # No question is left on the screen, and the next message is typed as ever.
        chat.enter("add")
        chat.wait_for("<- calc_add", "tool says: 3", after=before)
        assert "y: yes" not in chat.text
        chat.enter("/bye")
        assert chat.end() == 0


def test_the_calls_of_a_turn_are_asked_about_one_after_the_other(run: Run) -> None:
    with run() as chat:
        chat.wait_for(">>> ")
        chat.enter("asks asks")
        chat.wait_for("y: yes")
        chat.type("y")
        chat.wait_for("<- calc_asks", "y: yes")
        chat.type("y")
        shown = chat.wait_for("tool says: 3")
        assert shown.count("<- calc_asks") == 2
        chat.enter("/bye")
        assert chat.end() == 0


@pytest.mark.parametrize("message", ["hangs", "asks"])
def test_ctrl_c_ends_an_answer_while_a_tool_runs_or_waits(message: str, scripted: Scripted, run: Run) -> None:
    cancelled = scripted.gate.cancelled
    with run() as chat:
        chat.wait_for(">>> ")
        chat.enter(message)
        chat.wait_for("calc_hangs... 1 s" if message == "hangs" else "y: yes")
        chat.type("\x03")
        chat.wait_for("(stopped)")
        if message == "hangs":
            waiting = scripted.gate.wait_for(cancelled=cancelled + 1)
            asyncio.run_coroutine_threadsafe(waiting, scripted.server.loop).result(20)
        chat.enter("add")
        chat.wait_for("tool says: 3")
        chat.enter("/bye")
        assert chat.end() == 0


def test_a_question_is_answered_with_approvals_by_key(run: Run, scripted: Scripted, tmp_path: Path) -> None:
    environ = {**OFFLINE, "XDG_STATE_HOME": str(tmp_path)}
    with terminal("run", "m", "asks", "--url", scripted.server.url, **environ) as asked:
        asked.wait_for("y: yes")
        asked.type("y")
        asked.wait_for("tool says: 3")
        assert asked.end() == 0
