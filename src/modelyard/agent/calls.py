"""Runs the calls of one turn at the same time: approvals, progress, results.

What goes wrong is a result, which the model reads.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from modelyard.agent.approvals import MAX_DENIAL_LENGTH, ApprovalDesk, Decision
from modelyard.agent.counters import CallOutcome, ToolCounters
from modelyard.agent.events import (
    ApprovalDecided,
    ApprovalRequested,
    CallBegan,
    CallEnded,
    CallProgressed,
    RunningCall,
    ToolEvent,
)
from modelyard.agent.tools import ToolProgress, ToolResult
from modelyard.errors import ShuttingDown
from modelyard.system.printable import printable

logger = logging.getLogger(__name__)

MAX_CALLS_OF_TURN: Final = 64
"""Calls that one turn may make. Further ones are not run."""

MAX_CALLS_OF_ANSWER: Final = 1024
"""Calls that all turns of an answer may make together, as a whole answer holds their results until its end."""

MAX_CALL_S: Final = 14_460.0
"""Bound of one call, for sources of tools that set none; MCP servers have a shorter one, by the configuration."""

MAX_CANCEL_S: Final = 5.0
"""How long the end of an answer waits for its cancelled tools."""

MAX_RESULT_LENGTH: Final = 16 << 20
"""Characters of a result, for sources of tools that set no bound."""

MAX_NAME_LENGTH: Final = 128
"""Characters of a tool's name in a result: a model may write any."""

MAX_ARGUMENT_DEPTH: Final = 64
"""Depth of the arguments of a call."""


@dataclass(frozen=True, slots=True)
class CallRunner:
    """Runs the calls of one answer.

    Attributes:
        model: id of the model that calls.
        owner: whose request it is; see ``Caller.owner``.
        approvals: where calls wait for their approval.
        approval_timeout_s: how long they wait.
        counters: counts the calls.
        closing: set when the server stops, which ends calls that still run or wait.
        approved: names of tools whose calls need no approval any more.
    """

    model: str
    owner: bytes | None
    approvals: ApprovalDesk
    approval_timeout_s: float
    counters: ToolCounters
    closing: asyncio.Event
    approved: set[str] = field(default_factory=set)

    async def run(self, calls: Sequence[RunningCall]) -> AsyncGenerator[ToolEvent, None]:
        """Yield what happens with the calls, until each has its result. Closing the generator cancels them.

        Raises:
            ShuttingDown: the server stops before that.
        """
        if not calls:
            return
        if self.closing.is_set():
            raise ShuttingDown
        for running in calls:
            yield CallBegan(running)
        news = _News()
        closing = asyncio.create_task(self.closing.wait())
        closing.add_done_callback(lambda _: news.wake())
        tasks = [asyncio.create_task(self._run_one(running, news)) for running in calls]
        missing = len(calls)
        try:
            while missing:
                for event in await news.taken():
                    missing -= isinstance(event, CallEnded)
                    yield event
                if missing and self.closing.is_set():
                    raise ShuttingDown
        finally:
            closing.cancel()
            await _cancelled(tasks)

    async def _run_one(self, running: RunningCall, news: _News) -> None:
        ran_s: float | None = None
        outcome: CallOutcome = "cancelled"
        try:
            result = await self._refusal(running, news)
            if result is None:
                began = time.monotonic()
                try:
                    result = await _result(running, news)
                finally:
                    ran_s = time.monotonic() - began
                outcome = "error" if result.is_error else "ok"
            else:
                outcome = "not_run"
            news.put(CallEnded(running, replace(result, text=writable(result.text)), ran_s or 0.0))
        finally:
            self._record(running, outcome, ran_s)

    async def _refusal(self, running: RunningCall, news: _News) -> ToolResult | None:
        """Return why a call does not run; None: it runs."""
        tool = running.tool
        if (fault := fault_of(running.call.arguments)) is not None:
            return error(fault)
        is_free = not tool.needs_approval or tool.name in self.approved
        if is_free and not self.approvals.asks_always(self.model):
            return None
        with self.approvals.waiting(running, self.model, self.owner, self.approval_timeout_s) as pending:
            if pending is None:
                return error("Too many calls wait for their approval, so this one was not run. Try again later.")
            news.put(ApprovalRequested(running, pending.id, pending.expires_at))
            decision = await pending.decision()
        news.put(ApprovalDecided(running, pending.id, decision.is_approved))
        if decision.is_approved and decision.is_remembered:
            self.approved.add(tool.name)
        return None if decision.is_approved else _denied(decision)

    def denied(self, running: RunningCall, decision: Decision) -> ToolResult:
        """Return the result of a call that was not approved."""
        self._record(running, "not_run", None)
        denied = _denied(decision)
        return replace(denied, text=writable(denied.text))

    def _record(self, running: RunningCall, outcome: CallOutcome, ran_s: float | None) -> None:
        tool = running.tool
        self.counters.record(tool, outcome, ran_s)
        logger.info(
            "tool=%s server=%s model=%s round=%d outcome=%s duration=%.3f",
            printable(tool.own_name),
            printable(tool.server),
            self.model,
            running.round,
            outcome,
            ran_s or 0.0,
        )


def error(text: str) -> ToolResult:
    """Return a result that says what went wrong."""
    return ToolResult(text, is_error=True)


def unknown(name: str) -> ToolResult:
    """Return the result of a call of a tool that does not exist."""
    return error(f"There is no tool '{name[:MAX_NAME_LENGTH]}'. Call one of the tools that there are.")


def writable(text: str) -> str:
    """Return ``text`` with "?" for each lone surrogate, which no answer can hold: it has no bytes in UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _denied(decision: Decision) -> ToolResult:
    if not decision.message:
        return error("This call was denied, so it was not run.")
    return error(f"This call was denied, so it was not run: {decision.message[:MAX_DENIAL_LENGTH]}")


def fault_of(arguments: str) -> str | None:
    """Return what is wrong with the arguments of a call, for the model; None: they are a JSON object."""
    try:
        parsed = arguments_of(arguments)
    except (ValueError, RecursionError) as fault:
        return f"The arguments are no JSON: {fault}. Call the tool again with a JSON object."
    if not isinstance(parsed, dict):
        return "The arguments are no JSON object. Call the tool again with a JSON object."
    if _is_deeper(parsed, MAX_ARGUMENT_DEPTH):
        return f"The arguments are nested more than {MAX_ARGUMENT_DEPTH} levels deep. Call the tool with simpler ones."
    return None


def arguments_of(arguments: str) -> Any:
    """Return the arguments of a call; no text at all is no arguments.

    Raises:
        ValueError, RecursionError: they are no JSON.
    """
    return json.loads(arguments) if arguments.strip() else {}


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than ``depth`` levels."""
    level = [value]
    for _ in range(depth):
        level = [
            each
            for outer in level
            for each in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(each, dict | list)
        ]
        if not level:
            return False
    return True


async def _result(running: RunningCall, news: _News) -> ToolResult:
    """Run a call; a fault of its source becomes a result, too."""
    tool = running.tool
    arguments: Mapping[str, Any] = arguments_of(running.call.arguments)
    bound = asyncio.timeout(MAX_CALL_S)
    try:
        async with bound:
            result = await tool.run(arguments, lambda progress: news.progress(running, progress))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return error("The tool was cancelled.")
    except Exception as fault:  # (a source that breaks its promise must not end the answer)
        if bound.expired():
            return error(f"The tool took longer than {MAX_CALL_S:g} s, and was cancelled.")
        # The message may hold arguments, which are logged at the level "debug" alone.
        name, server = printable(tool.own_name), printable(tool.server)
        logger.error("the tool %s of %s raised %s", name, server, type(fault).__name__)
        logger.debug("where the tool %s of %s raised it", name, server, exc_info=True)
        return error("The tool failed with an internal error.")
    if len(result.text) <= MAX_RESULT_LENGTH:
        return result
    cut = result.text[:MAX_RESULT_LENGTH]
    return ToolResult(f"{cut}\n[The rest of the result was left out: it is too long.]", result.is_error, is_cut=True)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end, for a bounded time."""
    for task in tasks:
        task.cancel()
    running = [task for task in tasks if not task.done()]
    if running:
        _, hanging = await asyncio.wait(running, timeout=MAX_CANCEL_S)
        if hanging:
            logger.warning("%d tools still run %g s after they were cancelled", len(hanging), MAX_CANCEL_S)


class _News:
    """Events of calls that run at the same time, until the reader takes them.

    Reports of progress replace each other, so that a tool that makes many takes no memory.
    """

    def __init__(self) -> None:
        self._events: list[ToolEvent] = []
        self._progress: dict[int, CallProgressed] = {}
        self._over: set[int] = set()
        self._some = asyncio.Event()

    def put(self, event: ToolEvent) -> None:
        """Add an event."""
        if isinstance(event, CallEnded):
            self._over.add(id(event.running))
            self._progress.pop(id(event.running), None)
        self._events.append(event)
        self._some.set()

    def progress(self, running: RunningCall, progress: ToolProgress) -> None:
        """Add a report in place of the last one of the same call; one that comes after its end is dropped."""
        if id(running) in self._over:
            return
        progress = replace(progress, message=writable(progress.message))
        self._progress[id(running)] = CallProgressed(running, progress)
        self._some.set()

    def wake(self) -> None:
        """Let the reader look up, though there may be no event."""
        self._some.set()

    async def taken(self) -> list[ToolEvent]:
        """Wait for events or for ``wake``, and return all since the last call."""
        await self._some.wait()
        self._some.clear()
        # A call reports after what it waited for, and not after its end.
        events = [*self._events, *self._progress.values()]
        self._progress.clear()
        self._events.clear()
        return events
