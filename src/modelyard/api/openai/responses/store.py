"""Responses that can be asked for later, up to a bound. They are gone when the server ends."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelyard.engine.kv.owner_shares import first_to_go

MAX_RESPONSES: Final = 1000
MAX_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Kept:
    """A response.

    Attributes:
        response: as clients read it.
        messages: of the conversation up to its answer, as chat templates read them.
        input: items of the request, as they came.
        owner: digest of the key that asked for it; None where keys are not asked for. Names may change hands.
        size_bytes: about what it takes.
    """

    response: dict[str, Any]
    messages: tuple[Mapping[str, Any], ...]
    input: tuple[Mapping[str, Any], ...]
    owner: bytes | None
    size_bytes: int


class ResponseStore:
    """The responses of one server, by id.

    Where there are too many, the oldest of the owner of most goes: nobody's are pushed out by those of others, as long
    as he has no more than an equal share.
    """

    def __init__(self, most: int = MAX_RESPONSES, most_bytes: int = MAX_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def keep(
        self,
        response: dict[str, Any],
        messages: Sequence[Mapping[str, Any]],
        given: Sequence[Mapping[str, Any]],
        owner: bytes | None = None,
        asked_bytes: int = 0,
    ) -> None:
        """Keep a response, in place of what was kept of it before.

        asked_bytes is about what ``messages`` and ``given`` take: they may hold images of megabytes, which nobody reads
        on the event loop to count them.
        """
        self.delete(response["id"])
        size = asked_bytes + len(json.dumps(response, default=str))
        self._kept[response["id"]] = Kept(response, tuple(messages), tuple(given), owner, size)
        self._bytes += size
        while len(self._kept) > self._most:
            self._drop([(kept.owner, 1) for kept in self._kept.values()])
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            self._drop([(kept.owner, kept.size_bytes) for kept in self._kept.values()])

    def _drop(self, held: Sequence[tuple[bytes | None, int]]) -> None:
        """Give up one, by what all of them hold, the oldest first."""
        self.delete(list(self._kept)[first_to_go(held)])

    def find(self, id: str) -> Kept | None:  # noqa: A002 (OpenAI's own word)
        """The response of that id."""
        return self._kept.get(id)

    def delete(self, id: str) -> bool:  # noqa: A002 (OpenAI's own word)
        """Forget a response; whether there was one."""
        kept = self._kept.pop(id, None)
        if kept is None:
            return False
        self._bytes -= kept.size_bytes
        return True


def answer_messages(output: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The output of a response as the turn of the assistant that chat templates read."""
    turn: dict[str, Any] = {"role": "assistant", "content": ""}
    for item in output:
        match item["type"]:
            case "message":
                turn["content"] += "".join(part["text"] for part in item["content"])
            case "reasoning":
                thought = "".join(part["text"] for part in item["content"])
                turn["reasoning_content"] = turn.get("reasoning_content", "") + thought
            case "function_call" if item["status"] == "completed":
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["call_id"], "type": "function", "function": function}
                turn.setdefault("tool_calls", []).append(call)
    return [turn]
