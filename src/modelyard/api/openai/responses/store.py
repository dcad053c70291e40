"""Responses that clients can retrieve later: in memory, up to a bound."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelyard.api.openapi.answers_openai import ResponseObject
from modelyard.system.owner_shares import first_to_go

MAX_RESPONSES: Final = 1000
MAX_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One stored response.

    Attributes:
        response: the response object.
        messages: the conversation including the answer, as chat templates read it.
        input: the items of the request.
        owner: digest of the key that created it, as a key's name can be given to another key; None without keys.
        size_bytes: estimate of the memory that it takes.
    """

    response: ResponseObject
    messages: tuple[Mapping[str, Any], ...]
    input: tuple[Mapping[str, Any], ...]
    owner: bytes | None
    size_bytes: int


class ResponseStore:
    """The responses of one application, by id.

    When it is full, it drops the oldest response of the owner who holds the most. An owner with no more than an equal
    share therefore loses nothing to others.
    """

    def __init__(self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_responses, self._max_bytes = max_responses, max_bytes
        self._stored: OrderedDict[str, StoredResponse] = OrderedDict()
        self._bytes = 0

    def keep(
        self,
        response: ResponseObject,
        messages: Sequence[Mapping[str, Any]],
        items: Sequence[Mapping[str, Any]],
        owner: bytes | None = None,
        request_bytes: int = 0,
    ) -> None:
        """Store a response, in place of an earlier state of it.

        Args:
            response: the response object.
            messages: the conversation including the answer.
            items: the items of the request.
            owner: digest of the key; None without keys.
            request_bytes: estimate of the size of ``messages`` and ``items``. They may hold images of megabytes, so
                they are not measured on the event loop.
        """
        self.delete(response["id"])
        size = request_bytes + len(json.dumps(response, default=str))
        self._stored[response["id"]] = StoredResponse(response, tuple(messages), tuple(items), owner, size)
        self._bytes += size
        while len(self._stored) > self._max_responses:
            self._drop([(stored.owner, 1) for stored in self._stored.values()])
        while self._bytes > self._max_bytes and len(self._stored) > 1:
            self._drop([(stored.owner, stored.size_bytes) for stored in self._stored.values()])

    def _drop(self, held: Sequence[tuple[bytes | None, int]]) -> None:
        """Delete one response; ``held`` has the owner and the share of each response, oldest first."""
        self.delete(list(self._stored)[first_to_go(held)])

    def find(self, id: str) -> StoredResponse | None:  # noqa: A002 (OpenAI's own word)
        """Return the response of that id; None: there is none."""
        return self._stored.get(id)

    def delete(self, id: str) -> bool:  # noqa: A002 (OpenAI's own word)
        """Delete a response; return whether there was one."""
        stored = self._stored.pop(id, None)
        if stored is None:
            return False
        self._bytes -= stored.size_bytes
        return True


def answer_messages(output: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the output of a response as the assistant's turn, in the form that chat templates read."""
    turn: dict[str, Any] = {"role": "assistant", "content": ""}
    for item in output:
        match item["type"]:
            case "message":
                turn["content"] += "".join(part["text"] for part in item["content"])
            case "reasoning":
                text = "".join(part["text"] for part in item["content"])
                turn["reasoning_content"] = turn.get("reasoning_content", "") + text
            case "function_call" if item["status"] == "completed":
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["call_id"], "type": "function", "function": function}
                turn.setdefault("tool_calls", []).append(call)
    return [turn]
