"""The places of a server's connections, and which connection gives way when places run out. Pure: the caller sets
the time.

Hot path: each request moves its connection to another phase twice, 0.4 µs each.
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
    """What a connection is doing. Lower phases give way first; a connection in ANSWER never gives way."""

    CLOSING = 0
    HEAD = 1
    IDLE = 2
    BODY = 3
    ANSWER = 4


class Loss(StrEnum):
    """Why a connection was refused or given up; the value is the text in the log."""

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
        address: the address that it counts for; None: it counts for none.
        phase: what its connection is doing.
        since_s: when the phase began.
        received: bytes of the body that is arriving.
        fed_s: when its latest bytes arrived.
        is_spare: it is an extra place, for health checks.
        is_left: it is free again.
        give_up: gives up the connection; returns whether it did.
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


# How long a connection may stay in a phase.
_LIMITS: Final = {
    Phase.CLOSING: (MAX_LINGER_S, Loss.LINGERED),
    Phase.HEAD: (MAX_HEAD_S, Loss.HEAD_LATE),
    Phase.IDLE: (MAX_IDLE_S, Loss.IDLE),
}
_GIVING_WAY: Final = (Phase.CLOSING, Phase.HEAD, Phase.IDLE, Phase.BODY)


class Places:
    """All places of a server.

    Args:
        limit: the number of places.
        address_limit: the number of places of one address.

    Attributes:
        now_s: the time, which the caller advances, about once a second.
    """

    def __init__(self, limit: int, address_limit: int) -> None:
        self.limit, self.address_limit = limit, address_limit
        self.now_s = 0.0
        # The places in each phase, in the order in which they entered it.
        self._by_phase: dict[Phase, dict[Place, None]] = {phase: {} for phase in Phase}
        self._per_address: Counter[str] = Counter()
        self._count = 0
        self._spares: dict[Place, None] = {}
        self._arriving = 0

    def __len__(self) -> int:
        return self._count

    def count(self, phase: Phase) -> int:
        """How many connections are in a phase."""
        return len(self._by_phase[phase])

    def in_phase(self, phase: Phase) -> Iterator[Place]:
        """Iterate over the places in a phase, in the order in which they entered it."""
        return iter(self._by_phase[phase])

    def admit(self, address: str | None) -> tuple[Place | None, Place | None]:
        """Return a place for a new connection of ``address``, and the place that gives way for it.

        If an address has its share, only its own connections give way. If none can give way, the place is a spare one;
        None if the spare places are taken, too.
        """
        victim = None
        if address is not None and self._per_address[address] >= self.address_limit:
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
        return address is not None and self._per_address[address] >= self.address_limit

    def first_to_go(self) -> Place | None:
        """Return the place whose connection gives way first; None if none can."""
        return self._first_to_go(None)

    def count_for(self, place: Place, address: str | None) -> bool:
        """Count a proxy's connection for the address of its client; False if that address has its share."""
        if place.is_left or place.is_spare or address == place.address:
            return True
        if self.has_share(address):
            return False
        self._uncount(place.address)
        if address is not None:
            self._per_address[address] += 1
        place.address = address
        return True

    def move(self, place: Place, phase: Phase) -> None:
        """Move a connection to another phase."""
        if place.is_left:
            return
        if place.phase is Phase.BODY:
            self._arriving -= place.received
            place.received = 0
        del self._by_phase[place.phase][place]
        place.phase, place.since_s = phase, self.now_s
        self._by_phase[phase][place] = None
        if phase is Phase.BODY:
            # Bytes that came with the head.
            self._arriving += place.received
        else:
            place.received = 0

    def receive(self, place: Place, size: int) -> Place | None:
        """Count bytes of a body; return the place that gives way if all incomplete bodies together are too large."""
        place.received += size
        if place.phase is not Phase.BODY:
            return None
        self._arriving += size
        if self._arriving <= MAX_ARRIVING_BYTES:
            return None
        victim = next(iter(self._by_phase[Phase.BODY]))
        self.leave(victim)
        return victim

    def leave(self, place: Place) -> None:
        """Free a place. Idempotent."""
        if place.is_left:
            return
        if place.phase is Phase.BODY:
            self._arriving -= place.received
        place.is_left = True
        del self._by_phase[place.phase][place]
        if place.is_spare:
            del self._spares[place]
        else:
            self._count -= 1
            self._uncount(place.address)

    def overdue(self) -> list[Place]:
        """Return the places whose connections are late."""
        late: list[Place] = []
        for phase in _LIMITS:
            late += takewhile(self.lateness, self._by_phase[phase])
        late += filter(self.lateness, self._by_phase[Phase.BODY])
        return late

    def lateness(self, place: Place) -> Loss | None:
        """Return why a connection is late; None: it is not."""
        if place.is_left:
            return None
        elapsed_s = self.now_s - place.since_s
        if place.phase is Phase.BODY:
            return Loss.BODY_LATE if is_body_late(self.now_s - place.fed_s, elapsed_s, place.received) else None
        limit_s, loss = _LIMITS.get(place.phase, (elapsed_s, None))
        return loss if elapsed_s > limit_s else None

    def _enter(self, address: str | None, *, is_spare: bool) -> Place:
        place = Place(address, self.now_s, is_spare=is_spare)
        self._by_phase[Phase.HEAD][place] = None
        if is_spare:
            self._spares[place] = None
        else:
            self._count += 1
            if address is not None:
                self._per_address[address] += 1
        return place

    def _first_to_go(self, address: str | None) -> Place | None:
        """Return the oldest place of the lowest phase, of one address or, for None, of all."""
        for phase in _GIVING_WAY:
            for place in self._by_phase[phase]:
                if not place.is_spare and (address is None or place.address == address):
                    return place
        return None

    def _uncount(self, address: str | None) -> None:
        if address is None:
            return
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]


def share_of(host: str) -> str:
    """Return the address that a share is counted for: an IPv4 address, or the /64 network of an IPv6 address.

    A site has at least a /64 network, so a client could use any of its addresses.
    """
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
