"""What the server's tools gave in answers that end with calls of the client's tools.

The client returns the results of its calls with the conversation as it knows it, which lacks the rounds before. They
are kept here, and put back in their place when the conversation comes again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from modelyard.protocol.deltas import ToolCall
from modelyard.protocol.prompts import Audio, Image

Message = Mapping[str, Any]

MAX_KEPT: Final = 4096
"""Answers whose turns are kept at the same time."""

MAX_KEPT_BYTES: Final = 64 << 20
"""Bound of their text."""

OWNER_SHARE: Final = 4
"""One caller takes at most one part in so many of either, so that it does not push out what others need."""

KEPT_S: Final = 3600.0
"""How long they are kept after their last use."""

# An id of the server's own making, which nobody can guess. Some models write ids themselves, such as functions.f:0.
_UNIQUE_ID: Final = re.compile(r"call_[0-9a-f]{24}")


@dataclass(slots=True)
class _Kept:
    owner: bytes | None
    turns: tuple[Message, ...]
    keys: tuple[bytes, ...]
    size: int
    expires: float


class KeptTurns:
    """Keeps turns that clients do not see, of one application."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The least recently used first.
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._by_key: dict[bytes, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self, owner: bytes | None, before: Sequence[Message], calls: Sequence[ToolCall], turns: Sequence[Message]
    ) -> None:
        """Keep the turns of an answer.

        Args:
            owner: whose request it was.
            before: the conversation that was answered, as the client sent it.
            calls: calls of the client's tools, with which the answer ends.
            turns: all turns of the answer, and results of the server's tools among them.
        """
        shaped = [{"id": call.id, "function": {"name": call.name, "arguments": call.arguments}} for call in calls]
        prefix = _Prefix(owner, before)
        # Under both keys: some dialects return calls without the ids that they were sent.
        keys = tuple(
            {key for call in shaped for key in (prefix.key(len(before), call), prefix.place(len(before), call))}
        )
        size = sum(_size(turn) for turn in turns)
        if size > MAX_KEPT_BYTES // OWNER_SHARE:
            return
        self._number += 1
        former = {self._by_key[key] for key in keys if key in self._by_key}
        self._kept[self._number] = _Kept(owner, tuple(turns), keys, size, self._clock() + KEPT_S)
        self._by_key |= dict.fromkeys(keys, self._number)
        for number in former:
            # The same conversation may have two answers with the same call, told apart by the ids of their calls.
            if all(self._by_key.get(key) != number for key in self._kept[number].keys):
                self._discard(number)
        self._evict(owner)

    def restored(self, owner: bytes | None, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return a conversation with the kept turns in the places of the messages that stand for them.

        A message stands for turns that it ends with the calls of. Where the client has the turns already, which the ids
        of their calls tell, nothing changes.
        """
        self._expire()
        if not self._kept or not any(message.get("tool_calls") for message in messages):
            return tuple(messages)
        prefix = _Prefix(owner, messages)
        known = {call.get("id") for message in messages for call in message.get("tool_calls") or ()}
        restored: list[Message] = []
        for place, message in enumerate(messages):
            kept = self._find(prefix, place, message.get("tool_calls") or ())
            own = {call["id"] for call in message.get("tool_calls") or () if call.get("id")}
            if kept is None or not known.isdisjoint(_ids(kept.turns) - own):
                restored.append(message)
            else:
                restored += kept.turns
        return tuple(restored)

    def _find(self, prefix: _Prefix, place: int, calls: Sequence[Message]) -> _Kept | None:
        for call in calls:
            number = self._by_key.get(prefix.key(place, call))
            if number is not None:
                self._kept.move_to_end(number)
                kept = self._kept[number]
                kept.expires = self._clock() + KEPT_S
                return kept
        return None

    def _expire(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).expires <= now:
            self._discard(next(iter(self._kept)))

    def _evict(self, owner: bytes | None) -> None:
        """Discard the oldest turns until the bounds hold, first those of ``owner``, who has just added some."""
        self._expire()
        own = {number: kept for number, kept in self._kept.items() if kept.owner == owner}
        if owner is not None:
            self._shrink(own, MAX_KEPT // OWNER_SHARE, MAX_KEPT_BYTES // OWNER_SHARE)
        self._shrink(dict(self._kept), MAX_KEPT, MAX_KEPT_BYTES)

    def _shrink(self, kept: dict[int, _Kept], max_count: int, max_bytes: int) -> None:
        size = sum(each.size for each in kept.values())
        for number in list(kept):
            if len(kept) <= max_count and size <= max_bytes:
                return
            size -= kept.pop(number).size
            self._discard(number)

    def _discard(self, number: int) -> None:
        for key in self._kept.pop(number).keys:
            if self._by_key.get(key) == number:
                del self._by_key[key]


def _ids(turns: Sequence[Message]) -> set[str]:
    return {call["id"] for turn in turns for call in turn.get("tool_calls") or () if call.get("id")}


class _Prefix:
    """Finds what calls of the client's are kept under.

    An id that nobody can guess is enough. Other ids, and none at all as in Ollama's dialect, occur in many
    conversations: there, the conversation before the call counts as well.
    """

    def __init__(self, owner: bytes | None, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._owner = hashlib.blake2b(b"" if owner is None else b"owner" + owner, digest_size=16)
        # Of the first messages, so many; a later place continues it.
        self._digest, self._count = self._owner.copy(), 0

    def key(self, place: int, call: Message) -> bytes:
        """Return the key of ``call`` in the message at ``place``. Places must not decrease from call to call."""
        call_id = call.get("id") or ""
        if _UNIQUE_ID.fullmatch(call_id):
            digest = self._owner.copy()
            digest.update(call_id.encode())
            return digest.digest()
        return self.place(place, call)

    def place(self, place: int, call: Message) -> bytes:
        """Return the key of ``call`` by the conversation before it, whatever its id."""
        for message in self._messages[self._count : place]:
            self._digest.update(_bytes(message))
        self._count = place
        digest = self._digest.copy()
        digest.update(_bytes(call["function"]["name"]))
        digest.update(_arguments(call["function"].get("arguments")))
        return digest.digest()


def _arguments(arguments: Any) -> bytes:
    """Return arguments as bytes, the same for an object, which some dialects send, and for its text."""
    if isinstance(arguments, str):
        try:
            return _bytes(json.loads(arguments))
        except (ValueError, RecursionError):
            pass
    return _bytes(arguments)


def _bytes(value: Any) -> bytes:
    """Return a message, or a part of one, as bytes that differ for different values."""
    try:
        return orjson.dumps(value, _written, orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:
        # It has a lone surrogate, a long number, or many levels.
        return json.dumps(value, default=_written, sort_keys=True).encode()


def _written(value: Any) -> Any:
    """Return what stands for a value that JSON does not have."""
    match value:
        case Image(digest=digest) | Audio(digest=digest):
            return {"media": digest.hex()}
        case Mapping():
            return dict(value)
    return repr(value)


def _size(turn: Message) -> int:
    """Return the length of the texts of a turn, which are all of it that may be long."""
    calls = turn.get("tool_calls") or ()
    texts = [turn.get("content"), turn.get("reasoning_content"), *(call["function"]["arguments"] for call in calls)]
    return 500 + 4 * sum(len(text) for text in texts if isinstance(text, str))
