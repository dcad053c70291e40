"""Calls of tools that wait until somebody approves them: over HTTP, or a function of a Python program."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from modelyard.agent.events import RunningCall
from modelyard.errors import ApprovalNotFound
from modelyard.system.printable import printable
from modelyard.yard.stats.broadcast import Broadcaster, Observer

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 1024
"""Calls that wait for their approval at the same time."""

MAX_WAITING_OF_OWNER: Final = 128
"""Calls of one caller that wait at the same time."""

MAX_DENIAL_LENGTH: Final = 2000
"""Characters of what the model reads of a denial."""

EXPIRED: Final = "nobody approved it in time"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a call.

    Attributes:
        is_approved: whether it runs.
        message: why it does not, for the model; "" where nothing was said.
        is_remembered: whether further calls of the tool in the same answer need no approval.
    """

    is_approved: bool
    message: str = ""
    is_remembered: bool = False


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """A call that waits for its approval.

    Attributes:
        id: under which it is decided.
        running: the call.
        model: id of the model that made it.
        owner: whose request it belongs to; None: callers are not told apart.
        created_at, expires_at: seconds since 1970; at the latter it counts as denied.
        decided: has the decision, once it is made.
    """

    id: str
    running: RunningCall
    model: str
    owner: bytes | None
    created_at: float
    expires_at: float
    decided: asyncio.Future[Decision] = field(repr=False, compare=False)

    async def decision(self) -> Decision:
        """Wait for the decision; it is a denial where none is made in time."""
        try:
            async with asyncio.timeout(max(0.0, self.expires_at - time.time())):
                return await asyncio.shield(self.decided)
        except TimeoutError:
            # A decision between the end of the time and here was answered as one that counts.
            return self.decided.result() if self.decided.done() else Decision(is_approved=False, message=EXPIRED)


ApprovalState = Literal["waiting", "approved", "denied", "over"]
"""Where a call stands; "over": nobody decided in time, or its answer has ended."""


@dataclass(frozen=True, slots=True)
class ApprovalChange:
    """A call waits for its approval, or does so no longer."""

    pending: PendingApproval
    state: ApprovalState


Decide = Callable[[PendingApproval], Awaitable[Decision | None]]
"""Decides about a call; None: it leaves the decision to others. Its failure counts as a denial."""


class ApprovalDesk:
    """The calls of one application that wait for their approval. Use it on the event loop.

    Args:
        decide: is asked about every call, beside whoever decides over HTTP; the first decision counts. None: nobody.
        asks_always: whether each call of a model, by id, waits for a decision, also where its tool needs none, and
            where the client has approved it.
    """

    def __init__(self, decide: Decide | None = None, asks_always: Callable[[str], bool] = lambda _: False) -> None:
        self._decide, self.asks_always = decide, asks_always
        self._pending: dict[str, PendingApproval] = {}
        self._news = asyncio.Event()
        self._events = Broadcaster[ApprovalChange]("the approvals of calls")

    def observer(self) -> AbstractContextManager[Observer[ApprovalChange]]:
        """Return a context with an observer of calls that begin and end to wait, of all owners.

        Raises:
            TooManyConnections: there are too many observers.
        """
        return self._events.observer()

    @contextmanager
    def waiting(
        self, running: RunningCall, model: str, owner: bytes | None, timeout_s: float
    ) -> Iterator[PendingApproval | None]:
        """Let a call wait in the context; None: too many calls wait already, and it counts as denied."""
        of_owner = sum(each.owner == owner for each in self._pending.values())
        if len(self._pending) >= MAX_WAITING or (owner is not None and of_owner >= MAX_WAITING_OF_OWNER):
            yield None
            return
        now = time.time()
        decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        pending = PendingApproval(new_approval_id(), running, model, owner, now, now + timeout_s, decided)
        self._pending[pending.id] = pending
        self._tell()
        self._events.publish(ApprovalChange(pending, "waiting"))
        asking = None if self._decide is None else asyncio.create_task(self._ask(self._decide, pending))
        try:
            yield pending
        finally:
            del self._pending[pending.id]
            if not decided.done():
                decided.cancel()
                self._events.publish(ApprovalChange(pending, "over"))
            if asking is not None:
                asking.cancel()

    def pending(self, owner: bytes | None, *, sees_all: bool) -> list[PendingApproval]:
        """Return the calls that wait, the oldest first: those of ``owner``, or all."""
        waiting = (each for each in self._pending.values() if not each.decided.done())
        return [each for each in waiting if sees_all or each.owner == owner]

    async def wait_for_some(self, owner: bytes | None, timeout_s: float, *, sees_all: bool) -> list[PendingApproval]:
        """Return the calls that wait as soon as there are some, or none after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := self.pending(owner, sees_all=sees_all)):
                    await self._news.wait()
        except TimeoutError:
            return []
        return found

    def decide(self, approval_id: str, decision: Decision, owner: bytes | None, *, sees_all: bool) -> None:
        """Decide about a call.

        Raises:
            ApprovalNotFound: no call of ``owner``, or none at all, waits under that id any more.
        """
        pending = self._pending.get(approval_id)
        if pending is None or pending.decided.done() or not (sees_all or pending.owner == owner):
            raise ApprovalNotFound(approval_id)
        self._settle(pending, decision)

    def _tell(self) -> None:
        """Wake all that wait for calls."""
        self._news.set()
        self._news = asyncio.Event()

    async def _ask(self, decide: Decide, pending: PendingApproval) -> None:
        try:
            decision = await decide(pending)
        except Exception as fault:  # (what a program's function raises must not approve a call)
            tool = pending.running.tool
            name, server = printable(tool.own_name), printable(tool.server)
            # The message may hold arguments, which are logged at the level "debug" alone.
            logger.error("a call of %s (%s) is denied: its approval raised %s", name, server, type(fault).__name__)
            logger.debug("where the approval of %s (%s) raised it", name, server, exc_info=True)
            decision = Decision(is_approved=False, message="its approval failed")
        if decision is not None:
            self._settle(pending, decision)

    def _settle(self, pending: PendingApproval, decision: Decision) -> None:
        """Let the first decision count."""
        if not pending.decided.done():
            pending.decided.set_result(decision)
            self._events.publish(ApprovalChange(pending, "approved" if decision.is_approved else "denied"))


def new_approval_id() -> str:
    """Return an id that nobody can guess."""
    return f"apr_{secrets.token_hex(16)}"
