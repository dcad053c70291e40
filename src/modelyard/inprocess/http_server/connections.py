"""The state that all connections of a server share: places, the clock, and the log of lost connections."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final, Protocol

from modelyard.errors import TooManyConnections
from modelyard.inprocess.http_server import refusals
from modelyard.inprocess.http_server.forwarded import TrustedProxies
from modelyard.inprocess.http_server.limits import STALL_S
from modelyard.inprocess.http_server.places import Loss, Place, Places, share_of
from modelyard.inprocess.http_server.read_turns import MAX_READS_AT_ONCE
from modelyard.inprocess.http_server.refusal_log import Losses
from modelyard.inprocess.http_server.turns import Turns

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0


class Unread(Protocol):
    """A connection with bytes that its client has not read."""

    def check_progress(self, elapsed_s: float) -> None:
        """Abort the connection if the client has read too little since the last check, ``elapsed_s`` ago."""


class Connections:
    """The connections of one server.

    Args:
        limit: the number of connections.
        address_limit: the number of connections of one address.
        trusted: proxies whose headers are used.

    Attributes:
        turns: spreads work that comes for many connections at once.
        read_turns: spreads the reading of bodies.
    """

    def __init__(self, limit: int, address_limit: int, trusted: TrustedProxies) -> None:
        self.places = Places(limit, address_limit)
        self.losses = Losses()
        self.trusted = trusted
        self.turns = Turns()
        self.read_turns = Turns(MAX_READS_AT_ONCE)
        self._unread: dict[Unread, float] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._ticked_s = 0.0

    @property
    def unread(self) -> int:
        """How many connections have bytes that their clients have not read."""
        return len(self._unread)

    def start(self) -> None:
        """Start to check deadlines."""
        loop = asyncio.get_running_loop()
        self._ticked_s = loop.time()
        self._ticking = loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Stop checking deadlines."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        self._log_losses()

    def admit(self, host: str) -> Place | None:
        """Return a place for a new connection from ``host``; None if all are taken.

        A trusted proxy has no address of its own here: each of its connections counts for the client whose request is
        being answered.
        """
        address = None if host in self.trusted else share_of(host)
        place, victim = self.places.admit(address)
        if victim is not None:
            self.lose(victim, Loss.GAVE_WAY)
        if place is None:
            self.refuse(address)
        return place

    def refuse(self, address: str | None) -> TooManyConnections:
        """Count a refused connection of ``address`` and return the error for it."""
        if self.places.has_share(address):
            self.losses.note(Loss.SHARE_TAKEN, address)
            return refusals.share_taken(self.places.address_limit)
        self.losses.note(Loss.ALL_TAKEN, address)
        return refusals.all_taken(self.places.limit)

    def lose(self, place: Place, loss: Loss) -> None:
        """Give up the connection of ``place``."""
        address = place.address
        if place.give_up(loss):
            self.losses.note(loss, address)

    def lose_oldest(self) -> None:
        """Give up the connection that is first to go, after file descriptors have run out."""
        victim = self.places.first_to_go()
        if victim is not None:
            self.places.leave(victim)
            self.lose(victim, Loss.GAVE_WAY)

    def watch(self, connection: Unread) -> None:
        """Check from now on that the client of a connection reads."""
        self._unread.setdefault(connection, self.places.now_s)

    def unwatch(self, connection: Unread) -> None:
        """Stop checking a connection: its client has read everything."""
        self._unread.pop(connection, None)

    def advance(self, elapsed_s: float) -> None:
        """Advance the clock by ``elapsed_s`` and give up connections that are late."""
        self.places.now_s += elapsed_s
        now_s = self.places.now_s
        for place in self.places.overdue():
            self.turns.call(partial(self._lose_late, place))
        for connection, since_s in list(self._unread.items()):
            if now_s - since_s >= STALL_S:
                self._unread[connection] = now_s
                connection.check_progress(now_s - since_s)
        # Runs after the calls for late connections, so that the line counts them.
        self.turns.call(self._log_losses)

    def _lose_late(self, place: Place) -> None:
        """Give up a connection that is still late."""
        loss = self.places.lateness(place)
        if loss is not None:
            self.lose(place, loss)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        elapsed_s, self._ticked_s = now_s - self._ticked_s, now_s
        self._ticking = loop.call_later(TICK_S, self._tick)
        # While the event loop was blocked, no connection could be read, so a long gap does not count as a delay.
        self.advance(min(elapsed_s, 2 * TICK_S))

    def _log_losses(self) -> None:
        line = self.losses.line(self.places.now_s, len(self.places), self.places.limit)
        if line is not None:
            logger.warning("%s", line)
