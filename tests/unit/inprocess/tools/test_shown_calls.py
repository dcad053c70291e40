"""Answers with calls, as a notebook and a ``repr`` show them."""

from __future__ import annotations

from collections.abc import Callable

from modelyard import ModelBuilder
from support.program_tools import Build
from support.scripted_engines import ScriptedEngines
from support.tool_turns import call, turns


def test_a_notebook_shows_calls_folded(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    def page() -> str:
        return "<b>" + "x" * 10_000

    engines.answer = turns(call("page"), "Done")
    completion = build(tiny().with_tools([page])).send_chat_request("Read.")
    shown = completion._repr_html_()
    assert "<details><summary><code>page({})</code></summary>" in shown
    assert "&lt;b&gt;xxx" in shown
    assert len(shown) < 6_000
    assert "agentic_tool_calls=[AgenticToolCall('page({})', result='<b>xxx" in repr(completion)
    assert completion.to_dict()["agentic_tool_calls"][0]["name"] == "page"


def test_the_repr_of_a_failed_call_has_its_result_and_that_it_failed(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    def page() -> str:
        raise ValueError("gone")

    engines.answer = turns(call("page"), "Done")
    (ran,) = build(tiny().with_tools([page])).send_chat_request("Read.").agentic_tool_calls
    assert repr(ran) == "AgenticToolCall('page({})', result='ValueError: gone', is_error=True)"
