"""Who holds the places for connections, and who gives way when they are short. Pure: time is set from outside.

Hot path: a request moves its connection twice, 0.4 µs each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from enum import IntEnum, StrEnum
from ipaddress import IPv6Address, ip_address
from itertools import takewhile
from typing import Final

from modelyard.inprocess.http_server.limits import (
    MAX_ARRIVING_BYTES,
    MAX_HEAD_S,
    MAX_IDLE_S,
    MAX_LINGER_S,
    SPARE_CONNECTIONS,
    is_body_late,
)


class Phase(IntEnum):
    """What a connection does. Those of a lower phase give way first, and one that answers never does."""

    CLOSING = 0
    HEAD = 1
    IDLE = 2
    BODY = 3
    ANSWER = 4


class Loss(StrEnum):
    """Why a connection was refused or given up, in the words of the log."""

    HEAD_LATE = "sent no complete head in time"
    BODY_LATE = "sent their body too slowly"
    IDLE = "were idle"
    LINGERED = "did not leave when refused"
    STALLED = "did not read their answer"
    GAVE_WAY = "gave way to others before their request was complete"
    ALL_TAKEN = "were refused because all places are taken"
    SHARE_TAKEN = "were refused because their address has its share"
    NO_FILES = "were not accepted for lack of file descriptors"
    HANDSHAKE = "failed in the TLS handshake"
    UNFIT = "sent what is no request, or one beyond a limit"


class Place:
    """The place of one connection.

    Attributes:
        address: that it counts for; None: for none.
        phase, since_s: what its connection does, and since when.
        received: bytes of the body that is arriving.
        fed_s: when its latest bytes arrived.
        is_spare: it is one beyond all others, for requests for health.
        is_left: it is nobody's any more.
        give_up: called when its connection is to be given up; whether it is.
    """

    __slots__ = ("address", "fed_s", "give_up", "is_left", "is_spare", "phase", "received", "since_s")

    def __init__(self, address: str | None, now_s: float, *, is_spare: bool) -> None:
        self.address = address
        self.phase = Phase.HEAD
        self.since_s = self.fed_s = now_s
        self.received = 0
        self.is_spare = is_spare
        self.is_left = False
        self.give_up: Callable[[Loss], bool] = lambda _: True


# How long a connection may be in a phase, whatever it does there.
_LIMITS: Final = {
    Phase.CLOSING: (MAX_LINGER_S, Loss.LINGERED),
    Phase.HEAD: (MAX_HEAD_S, Loss.HEAD_LATE),
    Phase.IDLE: (MAX_IDLE_S, Loss.IDLE),
}
_GIVING_WAY: Final = (Phase.CLOSING, Phase.HEAD, Phase.IDLE, Phase.BODY)


class Places:
    """All places of a server.

    Args:
        limit: of connections in all.
        address_limit: of one address.

    Attributes:
        now_s: the time, which whoever has a clock sets. It may stand still for a second.
    """

    def __init__(self, limit: int, address_limit: int) -> None:
        self.limit, self.address_limit = limit, address_limit
        self.now_s = 0.0
        # In each phase, in the order in which they entered it.
        self._in: dict[Phase, dict[Place, None]] = {phase: {} for phase in Phase}
        self._of: Counter[str] = Counter()
        self._count = 0
        self._spares: dict[Place, None] = {}
        self._arriving = 0

    def __len__(self) -> int:
        return self._count

    def count(self, phase: Phase) -> int:
        """How many connections are in a phase."""
        return len(self._in[phase])

    def in_phase(self, phase: Phase) -> Iterator[Place]:
        """Those in a phase, in the order in which they entered it."""
        return iter(self._in[phase])

    def admit(self, address: str | None) -> tuple[Place | None, Place | None]:
        """A place for a new connection of ``address``, and who gives way for it.

        An address that has its share makes room among its own connections alone. Where nobody can give way, the place
        is a spare one; None where those are in use, too.
        """
        victim = None
        if address is not None and self._of[address] >= self.address_limit:
            victim = self._first_to_go(address)
        elif self._count >= self.limit:
            victim = self._first_to_go(None)
        elif self._count < self.limit:
            return self._enter(address, is_spare=False), None
        if victim is not None:
            self.leave(victim)
            return self._enter(address, is_spare=False), victim
        if len(self._spares) >= SPARE_CONNECTIONS:
            victim = next((place for place in self._spares if place.phase < Phase.ANSWER), None)
            if victim is None:
                return None, None
            self.leave(victim)
        return self._enter(address, is_spare=True), victim

    def has_share(self, address: str | None) -> bool:
        """Whether an address has all the places that it may have."""
        return address is not None and self._of[address] >= self.address_limit

    def first_to_go(self) -> Place | None:
        """Whose connection is missed least."""
        return self._first_to_go(None)

    def count_for(self, place: Place, address: str | None) -> bool:
        """Count a connection for another address, on whose behalf a proxy uses it; False where that has its share."""
        if place.is_left or place.is_spare or address == place.address:
            return True
        if self.has_share(address):
            return False
        self._uncount(place.address)
        if address is not None:
            self._of[address] += 1
        place.address = address
        return True

    def move(self, place: Place, phase: Phase) -> None:
        """Have a connection enter another phase."""
        if place.is_left:
            return
        if place.phase is Phase.BODY:
            self._arriving -= place.received
            place.received = 0
        del self._in[place.phase][place]
        place.phase, place.since_s = phase, self.now_s
        self._in[phase][place] = None
        if phase is Phase.BODY:
            # What came with the head.
            self._arriving += place.received
        else:
            place.received = 0

    def receive(self, place: Place, size: int) -> Place | None:
        """Count bytes of a body; who gives way where all bodies that arrive have together grown too large."""
        place.received += size
        if place.phase is not Phase.BODY:
            return None
        self._arriving += size
        if self._arriving <= MAX_ARRIVING_BYTES:
            return None
        victim = next(iter(self._in[Phase.BODY]))
        self.leave(victim)
        return victim

    def leave(self, place: Place) -> None:
        """Free a place. It may be free already."""
        if place.is_left:
            return
        if place.phase is Phase.BODY:
            self._arriving -= place.received
        place.is_left = True
        del self._in[place.phase][place]
        if place.is_spare:
            del self._spares[place]
        else:
            self._count -= 1
            self._uncount(place.address)

    def overdue(self) -> list[Place]:
        """Whose time is up."""
        late: list[Place] = []
        for phase in _LIMITS:
            late += takewhile(self.lateness, self._in[phase])
        late += filter(self.lateness, self._in[Phase.BODY])
        return late

    def lateness(self, place: Place) -> Loss | None:
        """Why a connection is to be given up; None: it is not late."""
        if place.is_left:
            return None
        elapsed_s = self.now_s - place.since_s
        if place.phase is Phase.BODY:
            return Loss.BODY_LATE if is_body_late(self.now_s - place.fed_s, elapsed_s, place.received) else None
        limit_s, loss = _LIMITS.get(place.phase, (elapsed_s, None))
        return loss if elapsed_s > limit_s else None

    def _enter(self, address: str | None, *, is_spare: bool) -> Place:
        place = Place(address, self.now_s, is_spare=is_spare)
        self._in[Phase.HEAD][place] = None
        if is_spare:
            self._spares[place] = None
        else:
            self._count += 1
            if address is not None:
                self._of[address] += 1
        return place

    def _first_to_go(self, address: str | None) -> Place | None:
        """The oldest of the lowest phase: of one address, or of all."""
        for phase in _GIVING_WAY:
            for place in self._in[phase]:
                if not place.is_spare and (address is None or place.address == address):
                    return place
        return None

    def _uncount(self, address: str | None) -> None:
        if address is None:
            return
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


def share_of(host: str) -> str:
    """What one share belongs to: an IPv4 address, or the 64 bits of an IPv6 address that one site has at the least."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
