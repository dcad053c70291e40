"""The agentic loop on scripted engines: what happens in an answer, in its order, and what an end leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modelyard.agent.agent import Agent
from modelyard.agent.approvals import ApprovalDesk, Decision, PendingApproval
from modelyard.agent.calls import fault_of
from modelyard.agent.events import (
    AgentEvent,
    AnswerEnded,
    ApprovalDecided,
    ApprovalRequested,
    ApprovalReturned,
    CallBegan,
    CallEnded,
    CallProgressed,
    OutputArrived,
    RoundBegan,
)
from modelyard.agent.loop import run
from modelyard.agent.offer import agent_request
from modelyard.agent.request import AgentRequest, DecidedCall
from modelyard.agent.tools import ReportProgress, ServerTool, ToolProgress, ToolResult
from modelyard.agent.turns import LEFT_OUT
from modelyard.config import validate_config
from modelyard.errors import ContextLengthExceeded, ShuttingDown
from modelyard.protocol.deltas import ToolCall
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Submit
from modelyard.yard.requests.context import CALLER, Caller
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_server import HERMES, call
from support.scripted_tools import Gate, ScriptedTools, add, server_tool

USER = {"role": "user", "content": "What is 1 + 2?"}
SUM = call("calc_add", a=1, b=2)


class Stage:
    """A yard whose model says what a test wants, and the agent on it.

    Attributes:
        answers: texts for the next rounds; an error that is one of them refuses its round.
        asked: what the model was sent.
        tools: those of the server.
    """

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.agent = Agent()
        self.answers: list[Sequence[str] | Exception] = []
        self.asked: list[Submit] = []
        self.tools: list[ServerTool] = [server_tool("add", add)]

    def answer(self, submit: Submit) -> Sequence[str]:
        self.asked.append(submit)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def request(self, *messages: Mapping[str, Any], **options: Any) -> AgentRequest:
        request = Request(Chat(messages or (USER,)), "m")
        asked = agent_request(self.agent, request, self.tools, self.yard.config, **options)
        assert asked is not None
        return asked

    async def events(self, asked: AgentRequest | None = None) -> list[AgentEvent]:
        async with asyncio.timeout(20):
            return [event async for event in run(self.yard, asked or self.request(), self.agent)]

    async def results(self, *texts: str) -> list[ToolResult]:
        """The results of the calls in one round of ``texts``."""
        self.answers = [texts, ["Done."]]
        return [event.result for event in await self.events() if isinstance(event, CallEnded)]

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The last conversation that the model was asked to answer."""
        prompt = self.asked[-1].prompt
        assert isinstance(prompt, Chat)
        return prompt.messages


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    write(tmp_path / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "./m.gguf", "alias": "m"}]}, source="test", base=tmp_path)
    stages: list[Stage] = []
    engines = ScriptedEngines(answer=lambda submit: stages[0].answer(submit), output_format=HERMES)
    yard = Yard(config, engines.make_handle)
    await yard.start()
    stages.append(Stage(yard))
    yield stages[0]
    await yard.close()
    assert await asyncio.to_thread(engines.end)


async def test_an_answer_is_told_in_the_order_in_which_it_happens(stage: Stage) -> None:
    stage.answers = [["I add. ", SUM], ["It is 3."]]
    kinds = [type(event) for event in await stage.events()]
    assert kinds == [RoundBegan, OutputArrived, CallBegan, CallEnded, RoundBegan, OutputArrived, AnswerEnded]


async def test_text_that_arrives_together_is_one_event(stage: Stage) -> None:
    stage.answers = [["a"] * 100]
    texts = [event for event in await stage.events() if isinstance(event, OutputArrived)]
    assert 1 <= len(texts) <= 2


async def test_a_call_without_arguments_has_none(stage: Stage) -> None:
    (result,) = await stage.results(call("calc_add"))
    assert result == ToolResult("0")


async def test_a_result_is_text_that_an_answer_can_hold(stage: Stage) -> None:
    async def odd(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        return ToolResult("a\ud800b é")

    stage.tools = [server_tool("add", odd)]
    stage.answers = [[SUM], ["Done."]]
    events = await stage.events()
    assert [event.result.text for event in events if isinstance(event, CallEnded)] == ["a?b é"]
    assert stage.messages[-1]["content"] == "a?b é"


async def test_a_call_reports_between_its_approval_and_its_end(stage: Stage) -> None:
    reports: list[ReportProgress] = []
    is_told, is_over = asyncio.Event(), asyncio.Event()

    async def reporting(_arguments: Mapping[str, Any], report: ReportProgress) -> ToolResult:
        reports.append(report)
        report(ToolProgress(1.0, message="a\udc80"))
        await is_told.wait()
        return ToolResult("")

    async def late(_arguments: Mapping[str, Any], report: ReportProgress) -> ToolResult:
        await is_over.wait()
        reports[0](ToolProgress(2.0))
        report(ToolProgress(1.0))
        await asyncio.Event().wait()
        raise AssertionError("it is cancelled")

    async def decide(_pending: PendingApproval) -> Decision:
        return Decision(is_approved=True)

    stage.agent = Agent.of([], decide)
    stage.tools = [server_tool("reporting", reporting, needs_approval=True), server_tool("late", late)]
    stage.answers = [[call("calc_reporting"), call("calc_late")]]
    seen: list[tuple[str, type[AgentEvent]]] = []
    async with asyncio.timeout(20), aclosing(run(stage.yard, stage.request(), stage.agent)) as events:
        async for event in events:
            if isinstance(event, CallBegan | ApprovalRequested | ApprovalDecided | CallProgressed | CallEnded):
                seen.append((event.running.tool.own_name, type(event)))
            if isinstance(event, CallProgressed) and seen[-1][0] == "reporting":
                # As the answer can hold it.
                assert event.progress.message == "a?"
                is_told.set()
            elif seen[-1:] == [("reporting", CallEnded)]:
                is_over.set()
            elif seen[-1:] == [("late", CallProgressed)]:
                break
    of_first = [kind for name, kind in seen if name == "reporting"]
    assert of_first == [CallBegan, ApprovalRequested, ApprovalDecided, CallProgressed, CallEnded]


@pytest.mark.parametrize("arguments", ["[1, 2]", "3", "{", "[" * 100_000], ids=["list", "number", "cut", "deep"])
def test_arguments_that_are_no_object_are_refused_for_the_model_to_read(arguments: str) -> None:
    assert "JSON object" in (fault_of(arguments) or "")
    assert fault_of("") is None


async def test_arguments_that_are_nested_too_deeply_are_refused(stage: Stage) -> None:
    nested: Any = 1
    for _ in range(70):
        nested = [nested]
    (result,) = await stage.results(call("calc_add", a=nested))
    assert result.is_error
    assert "levels deep" in result.text


async def test_a_source_that_breaks_its_promise_does_not_end_the_answer(stage: Stage) -> None:
    async def breaks(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        raise RuntimeError("secret")

    async def cancels(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        raise asyncio.CancelledError

    async def hangs(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        raise TimeoutError

    stage.tools = [server_tool("breaks", breaks), server_tool("cancels", cancels), server_tool("hangs", hangs)]
    results = await stage.results(call("calc_breaks"), call("calc_cancels"), call("calc_hangs"))
    assert all(result.is_error for result in results)
    assert not any("secret" in result.text for result in results)
    assert [message["role"] for message in stage.messages[-3:]] == ["tool"] * 3


async def test_a_call_that_takes_too_long_is_cancelled(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.agent.calls.MAX_CALL_S", 0.01)
    gate = Gate()
    stage.tools = [server_tool("gate", gate)]
    (result,) = await stage.results(call("calc_gate"))
    assert (result.is_error, gate.cancelled) == (True, 1)
    assert "0.01 s" in result.text


async def test_a_result_without_a_bound_is_cut(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def floods(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        return ToolResult("x" * 1000)

    monkeypatch.setattr("modelyard.agent.calls.MAX_RESULT_LENGTH", 100)
    stage.tools = [server_tool("floods", floods)]
    (result,) = await stage.results(call("calc_floods"))
    assert result.is_cut
    assert result.text.startswith("x" * 100 + "\n[")


@pytest.mark.parametrize("is_guarded", [False, True], ids=["runs", "waits for its approval"])
async def test_a_call_ends_when_the_server_stops(stage: Stage, *, is_guarded: bool) -> None:
    gate = Gate()
    stage.tools = [server_tool("gate", gate, needs_approval=is_guarded)]
    stage.answers = [[call("calc_gate")]]
    answering = asyncio.create_task(stage.events())
    if is_guarded:
        assert await stage.agent.approvals.wait_for_some(None, 20, sees_all=True)
    else:
        await gate.wait_for(started=1)
    await stage.yard.close()
    with pytest.raises(ShuttingDown):
        await answering
    assert gate.cancelled == gate.started
    assert stage.agent.approvals.pending(None, sees_all=True) == []


async def test_no_call_begins_once_the_server_stops(stage: Stage) -> None:
    gate = Gate()
    stage.tools = [server_tool("gate", gate)]
    stage.answers = [[call("calc_gate")]]
    stage.yard.closing.set()
    with pytest.raises(ShuttingDown):
        await stage.events()
    assert gate.started == 0


async def test_calls_of_one_turn_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.agent.loop.MAX_CALLS_OF_TURN", 2)
    assert [result.text for result in await stage.results(SUM, SUM, SUM, SUM)] == ["3", "3"]
    results = [message["content"] for message in stage.messages if message["role"] == "tool"]
    assert results[:2] == ["3", "3"]
    assert all("2 calls" in result for result in results[2:])


async def test_calls_that_a_client_has_approved_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.agent.loop.MAX_CALLS_OF_TURN", 2)
    decided = [DecidedCall(ToolCall(f"c{number}", "calc_add", "{}"), is_approved=True) for number in range(3)]
    stage.answers = [["Done."]]
    events = await stage.events(stage.request(decided=decided))
    shown = {event.running.call.id: event.result for event in events if isinstance(event, CallEnded)}
    assert (shown["c0"], shown["c1"]) == (ToolResult("0"), ToolResult("0"))
    assert (shown["c2"].is_error, "2 calls" in shown["c2"].text) == (True, True)
    read = {each["tool_call_id"]: each["content"] for each in stage.messages if each["role"] == "tool"}
    assert read == {call_id: result.text for call_id, result in shown.items()}


async def test_calls_of_the_whole_answer_are_bounded(stage: Stage) -> None:
    stage.answers = [[SUM], [SUM, SUM], ["Done."]]
    events = await stage.events(stage.request(max_calls=2))
    assert len([event for event in events if isinstance(event, CallEnded)]) == 2
    assert "as many calls as it may" in stage.messages[-1]["content"]


async def test_ids_that_a_model_writes_again_are_told_apart(stage: Stage) -> None:
    stage.answers = [[SUM], [SUM], ["Done."]]
    events = await stage.events()
    ids = [event.running.call.id for event in events if isinstance(event, CallEnded)]
    assert len(set(ids)) == 2


async def test_an_answer_goes_on_in_the_message_that_it_began_in(stage: Stage) -> None:
    begun = {"role": "assistant", "content": "Let me see"}
    stage.answers = [[": ", SUM], ["3."]]
    request = Request(Chat((USER, begun), continues=True), "m")
    asked = agent_request(stage.agent, request, stage.tools, stage.yard.config)
    await stage.events(asked)
    user, turn, result = stage.messages
    assert (user, turn["content"], result["content"]) == (USER, "Let me see:", "3")
    prompt = stage.asked[-1].prompt
    assert isinstance(prompt, Chat)
    assert not prompt.continues


async def test_the_callers_bound_holds_for_all_rounds_together(stage: Stage) -> None:
    caller = Caller()
    caller.max_tokens = 10
    token = CALLER.set(caller)
    try:
        stage.answers = [["a", "b", SUM], ["c"]]
        await stage.events()
    finally:
        CALLER.reset(token)
    assert [submit.max_tokens for submit in stage.asked] == [10, 7]


async def test_an_error_of_a_later_round_is_raised(stage: Stage) -> None:
    stage.answers = [[SUM], ContextLengthExceeded(10, 20)]
    with pytest.raises(ContextLengthExceeded):
        await stage.events()


async def test_a_result_that_the_context_has_no_room_for_is_cut(stage: Stage) -> None:
    async def floods(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        return ToolResult("x" * 1000)

    stage.tools = [server_tool("floods", floods)]
    too_long = ContextLengthExceeded(10, 20)
    stage.answers = [[call("calc_floods")], too_long, too_long, [call("calc_floods")], too_long, ["Done."]]
    events = await stage.events()
    assert isinstance(events[-1], AnswerEnded)
    first, second = (message["content"] for message in stage.messages if message["role"] == "tool")
    assert first == "x" * 250 + LEFT_OUT
    assert second == "x" * 500 + LEFT_OUT


class TestItsEnd:
    async def test_closing_it_cancels_the_running_tools(self, stage: Stage) -> None:
        gate = Gate()
        stage.tools = [server_tool("gate", gate)]
        stage.answers = [[call("calc_gate"), call("calc_gate")]]
        async with aclosing(run(stage.yard, stage.request(), stage.agent)) as events:
            async for event in events:
                if isinstance(event, CallBegan):
                    break
        assert gate.started == gate.cancelled

    async def test_a_call_that_still_waits_for_its_approval_has_no_duration(self, stage: Stage) -> None:
        stage.tools = [server_tool("add", add, needs_approval=True)]
        stage.answers = [[SUM]]
        async with asyncio.timeout(20), aclosing(run(stage.yard, stage.request(), stage.agent)) as events:
            async for event in events:
                if isinstance(event, ApprovalRequested):
                    break
        counters = stage.agent.counters
        assert counters.calls == {(("calc", "add"), "cancelled"): 1}
        assert sum(counters.duration_s["calc", "add"].counts) == 0

    async def test_cancelling_its_task_cancels_the_running_tools(self, stage: Stage) -> None:
        gate = Gate()
        stage.tools = [server_tool("gate", gate)]
        stage.answers = [[call("calc_gate"), call("calc_gate")]]
        task = asyncio.create_task(stage.events())
        await gate.wait_for(started=2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.cancelled == 2

    async def test_a_tool_that_does_not_take_its_cancellation_does_not_hold_it_up(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("modelyard.agent.calls.MAX_CANCEL_S", 0.01)
        started, free = asyncio.Event(), asyncio.Event()

        async def stubborn(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
            started.set()
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue
            return ToolResult("")

        stage.tools = [server_tool("stubborn", stubborn)]
        stage.answers = [[call("calc_stubborn")]]
        task = asyncio.create_task(stage.events())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "1 tools still run" in caplog.text
        free.set()
        await asyncio.sleep(0)


class TestApprovals:
    async def test_a_function_of_the_program_decides(self, stage: Stage) -> None:
        questions: list[PendingApproval] = []

        async def decide(pending: PendingApproval) -> Decision:
            questions.append(pending)
            return Decision(is_approved=len(questions) == 1, message="once is enough")

        stage.agent = Agent.of([], decide)
        stage.tools = [server_tool("add", add, needs_approval=True)]
        stage.answers = [[SUM], [SUM], ["Done."]]
        results = [event.result for event in await stage.events() if isinstance(event, CallEnded)]
        assert [result.is_error for result in results] == [False, True]
        assert results[1].text == "This call was denied, so it was not run: once is enough"
        assert questions[0].model == "m"

    async def test_a_program_may_be_asked_about_every_call(self, stage: Stage) -> None:
        async def decide(_pending: PendingApproval) -> Decision:
            return Decision(is_approved=False, message="never")

        stage.agent = Agent((), ApprovalDesk(decide, lambda model: model == "m"))
        # As of an MCP server that the request names. The client is not asked, and what it approved counts for nothing.
        stage.tools = [server_tool("add", add)]
        approved = ToolCall("c1", "calc_add", '{"a": 4}')
        turn = {"role": "assistant", "content": "", "tool_calls": []}
        stage.answers = [[SUM], ["Done."]]
        decided = (DecidedCall(approved, True),)
        events = await stage.events(stage.request(USER, turn, decided=decided, returns_approvals=True))
        results = [event.result.text for event in events if isinstance(event, CallEnded)]
        assert results == ["This call was denied, so it was not run: never"] * 2

    async def test_an_approval_that_is_remembered_does_not_keep_a_program_from_being_asked(self, stage: Stage) -> None:
        questions: list[PendingApproval] = []

        async def decide(pending: PendingApproval) -> Decision:
            questions.append(pending)
            return Decision(is_approved=True, is_remembered=True)

        for always, number in ((False, 1), (True, 3)):
            stage.agent = Agent((), ApprovalDesk(decide, lambda _, always=always: always))
            stage.tools = [server_tool("add", add, needs_approval=True)]
            stage.answers = [[SUM], [SUM], ["Done."]]
            await stage.events()
            assert len(questions) == number

    async def test_a_function_that_fails_approves_nothing(self, stage: Stage) -> None:
        async def decide(_pending: PendingApproval) -> Decision:
            raise RuntimeError("broken")

        stage.agent = Agent.of([], decide)
        stage.tools = [server_tool("add", add, needs_approval=True)]
        (result,) = await stage.results(SUM)
        assert result.is_error

    async def test_a_call_that_nobody_decides_about_is_denied_in_time(self, stage: Stage) -> None:
        stage.tools = [server_tool("add", add, needs_approval=True)]
        asked = replace(stage.request(), approval_timeout_s=0.01)
        stage.answers = [[SUM], ["Done."]]
        (result,) = [event.result for event in await stage.events(asked) if isinstance(event, CallEnded)]
        assert result.text == "This call was denied, so it was not run: nobody approved it in time"
        assert stage.agent.approvals.pending(None, sees_all=True) == []

    async def test_an_answer_may_end_with_the_question(self, stage: Stage) -> None:
        stage.tools = [server_tool("add", add), server_tool("guarded", add, needs_approval=True)]
        stage.answers = [["I add. ", SUM, call("calc_guarded", a=4)]]
        *_, ended, returned, last = await stage.events(stage.request(returns_approvals=True))
        assert isinstance(ended, CallEnded)
        assert ended.running.tool.own_name == "add"
        assert isinstance(returned, ApprovalReturned)
        assert returned.running.tool.own_name == "guarded"
        assert isinstance(last, AnswerEnded)
        assert not last.calls_client

    async def test_decided_calls_run_before_the_first_round(self, stage: Stage) -> None:
        stage.tools = [server_tool("guarded", add, needs_approval=True)]
        approved, refused = ToolCall("c1", "calc_guarded", '{"a": 4}'), ToolCall("c2", "calc_guarded", "{}")
        gone = ToolCall("c3", "calc_gone", "{}")
        turn = {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
                for each in (approved, refused, gone)
            ],
        }
        stage.answers = [["4."]]
        decided = (DecidedCall(approved, True), DecidedCall(refused, False, "No."), DecidedCall(gone, True))
        events = await stage.events(stage.request(USER, turn, decided=decided, returns_approvals=True))
        kinds = [type(event) for event in events]
        assert kinds[:4] == [CallBegan, CallEnded, CallBegan, CallEnded]
        assert kinds[4] is RoundBegan
        results = {message["tool_call_id"]: message["content"] for message in stage.messages[2:]}
        assert results["c1"] == "4"
        assert results["c2"].endswith("No.")
        assert results["c3"].startswith("There is no tool")


async def test_tools_of_several_sources_are_offered_once_each(stage: Stage) -> None:
    first, second = ScriptedTools(server_tool("add", add)), ScriptedTools(server_tool("add", Gate()))
    agent = Agent.of([first, second])
    (tool,) = agent.tools("m", Caller())
    assert tool.run is add
