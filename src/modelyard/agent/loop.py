"""The agentic loop: the model writes, the server runs the tools that it calls, and the model goes on with the results.

The rounds of an answer are requests to the yard, one behind the other, which keep the model and the computed beginning
of the conversation between them. While tools run, the answer has no sequence, so it takes neither compute nor a place
in the batch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from modelyard.agent.agent import Agent
from modelyard.agent.approvals import Decision, new_approval_id
from modelyard.agent.calls import MAX_CALLS_OF_ANSWER, MAX_CALLS_OF_TURN, CallRunner, error, unknown
from modelyard.agent.events import (
    AgentEvent,
    AnswerEnded,
    ApprovalReturned,
    CallBegan,
    CallEnded,
    OutputArrived,
    RoundBegan,
    RunningCall,
    ToolEvent,
)
from modelyard.agent.output import RoundOutput
from modelyard.agent.request import AgentRequest
from modelyard.agent.rounds import added, bounded, is_used_up, next_round, without_tools
from modelyard.agent.tools import ToolResult
from modelyard.agent.turns import assistant_turn, continued, result_turn, shortened, with_results
from modelyard.errors import ContextLengthExceeded
from modelyard.protocol.deltas import Message, ToolCall
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.protocol.values import Usage
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.submission import Rounds
from modelyard.yard.yard import Yard

MIN_RESULT_LENGTH: Final = 64
"""Characters to which results are cut at least; a conversation that is still too long is refused."""


@dataclass(slots=True)
class _Answer:
    """An answer on its way.

    Attributes:
        asked: what is answered.
        chat: the conversation so far.
        client_tools: names of the client's tools.
        used: tokens of the rounds that are over.
        calls: number of calls of the server's tools so far.
        used_ids: ids of all calls.
        added: number of turns at the end of the conversation that the answer has added.
        results: the results among these, and those of decided calls, by the ids of their calls.
    """

    asked: AgentRequest
    chat: Chat
    client_tools: frozenset[str]
    used: Usage = field(default_factory=lambda: Usage(0, 0, 0))
    calls: int = 0
    used_ids: set[str] = field(default_factory=set)
    added: int = 0
    results: dict[str, ToolResult] = field(default_factory=dict)

    @property
    def turns(self) -> Sequence[Mapping[str, Any]]:
        """What the answer has added to the conversation."""
        return self.chat.messages[len(self.chat.messages) - self.added :]

    def add(self, message: Message, results: Sequence[Mapping[str, Any]]) -> None:
        """Add what the model wrote in a round, and the results of its calls."""
        self.chat = continued(self.chat, assistant_turn(message), results)
        self.added += 1 + len(results)

    def shorten(self, max_length: int) -> None:
        """Cut the results that the answer has added to so many characters."""
        self.chat = replace(self.chat, messages=shortened(self.chat.messages, self.results, max_length))
        for call_id, result in self.results.items():
            self.results[call_id] = replace(result, text=result.text[:max_length])

    def ended(self, finished: Finished, generation: TokenStream, *, calls_client: bool) -> AnswerEnded:
        """Return the end of the answer with the usage of all rounds."""
        return AnswerEnded(replace(finished, usage=self.used), calls_client, generation)


async def run(yard: Yard, asked: AgentRequest, agent: Agent) -> AsyncGenerator[AgentEvent, None]:
    """Yield what happens in the answer to ``asked``, in its order, until it has ended.

    Closing the generator cancels the running tools and the sequence, before the engine's next step.

    Raises:
        ModelyardError: as ``Yard.generate``, in any round.
    """
    chat = asked.request.prompt
    assert isinstance(chat, Chat)
    await yard.checks.check_task(asked.request.model, "text")
    caller = current_caller()
    asked = replace(asked, request=bounded(asked.request, caller.max_tokens))
    model = yard.configured(asked.request.model).id
    if agent.approvals.asks_always(model):
        asked = replace(asked, tools=agent.guarded(asked.tools.values(), model), returns_approvals=False)
    names = frozenset(tool["function"]["name"] for tool in chat.tools)
    answer = _Answer(asked, chat, names.difference(asked.tools))
    runner = CallRunner(
        model,
        caller.owner,
        agent.approvals,
        asked.approval_timeout_s,
        agent.counters,
        yard.closing,
    )
    with yard.rounds(asked.request.model) as rounds:
        async with aclosing(_decided_calls(answer, runner)) as events:
            async for event in events:
                yield event
        for number in range(asked.max_rounds + 1):
            if number == asked.max_rounds:
                answer.chat = without_tools(answer.chat, asked.tools)
            async with aclosing(_round(answer, number, rounds, runner, agent)) as happening:
                async for each in happening:
                    yield each
                    if isinstance(each, AnswerEnded):
                        return


async def _decided_calls(answer: _Answer, runner: CallRunner) -> AsyncGenerator[ToolEvent, None]:
    """Run the calls that the client has approved, and let the conversation have their results, and its denials."""
    results = answer.results
    approved: list[RunningCall] = []
    for decided in answer.asked.decided:
        call, tool = decided.call, answer.asked.tools.get(decided.call.name)
        answer.used_ids.add(call.id)
        if tool is None:
            results[call.id] = unknown(call.name)
            continue
        running = RunningCall(call, replace(tool, needs_approval=False), 0)
        if decided.is_approved and len(approved) < MAX_CALLS_OF_TURN:
            approved.append(running)
            continue
        yield CallBegan(running)
        if decided.is_approved:
            results[call.id] = _beyond_turn()
        else:
            results[call.id] = runner.denied(running, Decision(is_approved=False, message=decided.message))
        yield CallEnded(running, results[call.id], 0.0)
    async with aclosing(runner.run(approved)) as events:
        async for event in events:
            if isinstance(event, CallEnded):
                results[event.running.call.id] = event.result
            yield event
    pairs = [(each.call, results[each.call.id]) for each in answer.asked.decided]
    answer.chat = with_results(answer.chat, pairs)


async def _round(
    answer: _Answer, number: int, rounds: Rounds, runner: CallRunner, agent: Agent
) -> AsyncGenerator[AgentEvent, None]:
    """Let the model write once, and run what it calls; the last event ends the answer, or another round follows."""
    asked = answer.asked
    with ExitStack() as submitted:
        generation, chat = await _submitted(answer, number, rounds, submitted)
        yield RoundBegan(number, generation)
        output = RoundOutput(generation, chat, answer.client_tools, answer.used_ids)
        reader = _TextReader(generation)
        while (text := await reader.next()) is not None:
            deltas = output.push(text) if text else ()
            if deltas or generation.computed is not None:
                yield OutputArrived(deltas, generation)
        finished = generation.outcome()
        if deltas := output.finish(finished):
            yield OutputArrived(deltas, generation)
    answer.used = added(answer.used, finished.usage)
    message = output.message()
    calls = message.tool_calls if output.ends_with_calls(finished) else ()
    of_client = tuple(call for call in calls if output.is_clients(call))
    own = [call for call in calls if not output.is_clients(call)] if number < asked.max_rounds else []
    if not own or (is_used_up(asked.request, answer.used) and not of_client):
        if of_client:
            _keep(answer, replace(message, tool_calls=of_client), [], of_client, agent)
        ended = replace(finished, reason="length") if own else finished
        yield answer.ended(ended, generation, calls_client=bool(of_client))
        return
    runnable, returned = _admitted(answer, own, number, runner)
    results = answer.results
    async with aclosing(runner.run(runnable)) as events:
        async for event in events:
            if isinstance(event, CallEnded):
                results[event.running.call.id] = event.result
            yield event
    turns = [result_turn(call, results[call.id]) for call in own if call.id in results]
    if not of_client and not returned:
        answer.add(message, turns)
        return
    for running in returned:
        yield ApprovalReturned(running, new_approval_id())
    if of_client:
        _keep(answer, message, turns, of_client, agent)
    yield answer.ended(finished, generation, calls_client=bool(of_client))


async def _submitted(answer: _Answer, number: int, rounds: Rounds, submitted: ExitStack) -> tuple[TokenStream, Chat]:
    """Submit a round, and return what the model generates, once it is accepted, and the conversation that it answers.

    Results that make the conversation too long are cut until it fits: a tool may return more than a model can read.

    Args:
        answer, number, rounds: of the round.
        submitted: the round is cancelled when it is left.

    Raises:
        ModelyardError: the round was refused.
    """
    longest = max((len(result.text) for result in answer.results.values()), default=0)
    while True:
        request = next_round(answer.asked.request, answer.chat, number, answer.used)
        chat = request.prompt
        assert isinstance(chat, Chat)
        with ExitStack() as trying:
            try:
                generation = trying.enter_context(rounds.submit(request))
                await generation.accepted()
            except ContextLengthExceeded:
                longest //= 2
                if longest < MIN_RESULT_LENGTH:
                    raise
                answer.shorten(longest)
            else:
                submitted.push(trying.pop_all())
                return generation, chat


def _admitted(
    answer: _Answer, calls: Sequence[ToolCall], number: int, runner: CallRunner
) -> tuple[list[RunningCall], list[RunningCall]]:
    """Return the calls of a round that run now, and those that the client is asked to approve.

    The others get a result, which says why they do not run.
    """
    asked, results = answer.asked, answer.results
    runnable: list[RunningCall] = []
    returned: list[RunningCall] = []
    max_calls = MAX_CALLS_OF_ANSWER if asked.max_calls is None else min(asked.max_calls, MAX_CALLS_OF_ANSWER)
    for call in calls:
        tool = asked.tools.get(call.name)
        if tool is None:
            results[call.id] = unknown(call.name)
            continue
        if len(runnable) + len(returned) == MAX_CALLS_OF_TURN:
            results[call.id] = _beyond_turn()
            continue
        if answer.calls >= max_calls:
            results[call.id] = error("The answer has made as many calls as it may, so this one was not run.")
            continue
        answer.calls += 1
        running = RunningCall(call, tool, number)
        needs_answer = asked.returns_approvals and tool.needs_approval and tool.name not in runner.approved
        (returned if needs_answer else runnable).append(running)
    return runnable, returned


def _beyond_turn() -> ToolResult:
    return error(f"A turn may make {MAX_CALLS_OF_TURN} calls, so this one was not run.")


def _keep(
    answer: _Answer,
    message: Message,
    results: Sequence[Mapping[str, Any]],
    calls: Sequence[ToolCall],
    agent: Agent,
) -> None:
    """Keep what the client does not see of the answer, if anything, for the request with the results of ``calls``."""
    answer.add(message, results)
    if len(answer.turns) > 1:
        agent.kept_turns.keep(current_caller().owner, answer.asked.before, calls, answer.turns)


class _TextReader:
    """Reads the text of a generation as it arrives: all that has come since the last read as one piece."""

    def __init__(self, generation: TokenStream) -> None:
        self._generation = generation
        self._computed: int | None = None

    async def next(self) -> str | None:
        """Return the text that has arrived, "" where there is news of the prompt alone; None at the end."""
        taken: list[str] = []
        generation = self._generation

        def take_news() -> bool:
            if text := generation.take_text():
                taken.append(text)
            return bool(taken) or generation.is_over or generation.computed not in (None, self._computed)

        await generation.drive(take_news)
        self._computed = generation.computed
        return "".join(taken) if taken or not generation.is_over else None
