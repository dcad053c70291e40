"""Turns of the server's tools return to the conversation whose client does not have them, and to no other."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from modelyard.agent import kept_turns
from modelyard.agent.kept_turns import KEPT_S, KeptTurns
from modelyard.protocol.deltas import ToolCall
from modelyard.protocol.prompts import Image

UNIQUE = "call_" + "0" * 24
USER = {"role": "user", "content": "Hi"}
OWNER = b"alice"


def calling(*calls: tuple[str | None, str], content: str = "") -> dict[str, Any]:
    """A turn of the assistant that makes calls, by ids and names."""
    made = [
        {**({} if call_id is None else {"id": call_id}), "function": {"name": name, "arguments": "{}"}}
        for call_id, name in calls
    ]
    return {"role": "assistant", "content": content, "tool_calls": made}


HIDDEN = (
    calling(("s1", "add")),
    {"role": "tool", "tool_call_id": "s1", "content": "3"},
    calling((UNIQUE, "weather")),
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> KeptTurns:
    return KeptTurns(clock)


def keep(kept: KeptTurns, call_id: str = UNIQUE, *, owner: bytes | None = OWNER, hidden: Any = HIDDEN) -> None:
    kept.keep(owner, (USER,), (ToolCall(call_id, "weather", "{}"),), hidden)


SEEN = (USER, calling((UNIQUE, "weather"), content="3?"), {"role": "tool", "tool_call_id": UNIQUE, "content": "rain"})


def test_they_take_the_place_of_the_message_that_the_client_has(kept: KeptTurns) -> None:
    keep(kept)
    assert kept.restored(OWNER, SEEN) == (USER, *HIDDEN, SEEN[-1])
    # The client sends the conversation again with every later request.
    assert kept.restored(OWNER, (*SEEN, USER)) == (USER, *HIDDEN, SEEN[-1], USER)


def test_a_client_that_has_them_keeps_its_own(kept: KeptTurns) -> None:
    keep(kept)
    own = (USER, *HIDDEN, SEEN[-1])
    assert kept.restored(OWNER, own) == own


@pytest.mark.parametrize("owner", [b"bob", None])
def test_others_do_not_get_them(kept: KeptTurns, owner: bytes | None) -> None:
    keep(kept)
    assert kept.restored(owner, SEEN) == SEEN


def test_they_are_kept_for_a_time_after_their_last_use(kept: KeptTurns, clock: Clock) -> None:
    keep(kept)
    clock.now = KEPT_S - 1
    assert len(kept.restored(OWNER, SEEN)) == 5
    clock.now += KEPT_S - 1
    assert len(kept.restored(OWNER, SEEN)) == 5
    clock.now += KEPT_S
    assert kept.restored(OWNER, SEEN) == SEEN
    assert len(kept) == 0


@pytest.mark.parametrize("call_id", ["functions.weather:0", None], ids=["of the model", "none"])
def test_an_id_that_others_may_have_is_found_in_its_own_conversation_alone(
    kept: KeptTurns, call_id: str | None
) -> None:
    made = call_id or UNIQUE
    hidden = (*HIDDEN[:2], calling((made, "weather")))
    kept.keep(OWNER, (USER,), (ToolCall(made, "weather", "{}"),), hidden)
    turn = calling((call_id, "weather"))
    turn["tool_calls"][0]["function"]["arguments"] = {}
    assert kept.restored(OWNER, (USER, turn)) == (USER, *hidden)
    other = {"role": "user", "content": "Ho"}
    assert kept.restored(OWNER, (other, turn)) == (other, turn)


def test_images_of_a_conversation_tell_it_apart(kept: KeptTurns) -> None:
    def seeing(pixels: bytes) -> dict[str, Any]:
        return {"role": "user", "content": ("Look:", Image(1, 1, pixels))}

    kept.keep(OWNER, (seeing(b"abc"),), (ToolCall("x", "weather", "{}"),), HIDDEN)
    turn = calling(("x", "weather"))
    assert len(kept.restored(OWNER, (seeing(b"abc"), turn))) == 4
    assert len(kept.restored(OWNER, (seeing(b"abd"), turn))) == 2


@pytest.mark.parametrize(
    ("before", "other"),
    [
        ({"content": "\ud800"}, {"content": "\ud801"}),
        ({"content": ""}, {"content": None}),
        ({"content": "1"}, {"content": 1}),
        ({"content": 1 << 70}, {"content": 1 << 71}),
        ({"content": ("a", "b")}, {"content": ("ab",)}),
        ({"content": MappingProxyType({"a": "b"})}, {"content": MappingProxyType({"a": "c"})}),
    ],
    ids=["surrogates", "nothing", "numbers", "long numbers", "parts", "mappings"],
)
def test_messages_that_differ_tell_a_conversation_apart(kept: KeptTurns, before: Any, other: Any) -> None:
    kept.keep(OWNER, (before,), (ToolCall("x", "weather", '{"a": "\\ud800", "b": 1}'),), HIDDEN)
    turn = calling(("x", "weather"))
    turn["tool_calls"][0]["function"]["arguments"] = {"b": 1, "a": "\ud800"}
    assert len(kept.restored(OWNER, (other, turn))) == 2
    assert len(kept.restored(OWNER, (dict(reversed(before.items())), turn))) == 4


def test_what_is_kept_is_bounded(kept: KeptTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_turns, "MAX_KEPT", 8)
    for number in range(20):
        keep(kept, f"call_{number:024}", owner=b"alice")
    assert len(kept) == 2
    keep(kept, owner=b"bob")
    for number in range(20):
        keep(kept, f"call_{number:024}", owner=b"alice")
    assert len(kept.restored(b"bob", SEEN)) == 5
    for number in range(20):
        keep(kept, f"call_{number:024}", owner=None)
    assert len(kept) == 8


def test_turns_that_are_too_long_are_not_kept(kept: KeptTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_turns, "MAX_KEPT_BYTES", 40_000)
    keep(kept, hidden=({"role": "tool", "content": "x" * 10_000},))
    assert len(kept) == 0
    keep(kept, hidden=({"role": "tool", "content": "x" * 2_000},))
    assert len(kept) == 1


def test_a_call_that_is_kept_again_replaces_the_first(kept: KeptTurns) -> None:
    keep(kept)
    keep(kept, hidden=HIDDEN[2:])
    assert len(kept) == 1
    assert kept.restored(OWNER, SEEN) == (USER, *HIDDEN[2:], SEEN[-1])
