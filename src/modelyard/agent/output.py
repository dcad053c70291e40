"""What a model writes in one round: text and calls of the client's tools for the client, other calls for the server."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from modelyard.protocol.deltas import Delta, Message, ToolCall, ToolCallArguments, ToolCallBegin, ToolCallEnd, fold
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.token_stream import TokenStream


class RoundOutput:
    """Parses the answer of one round.

    Args:
        generation: what the model generates.
        chat: what it answers.
        client_tools: names of the client's tools.
        used_ids: ids of the calls of earlier rounds, which no call gets again. Those of this round are added.
    """

    def __init__(self, generation: TokenStream, chat: Chat, client_tools: Collection[str], used_ids: set[str]) -> None:
        self._reader = OutputReader(generation, chat)
        self._client_tools, self._used_ids = client_tools, used_ids
        self._deltas: list[Delta] = []
        # Numbers of the client's calls in this round -> in what the client reads.
        self._visible: dict[int, int] = {}

    def push(self, text: str) -> tuple[Delta, ...]:
        """Return what ``text`` completes of what the client reads."""
        return self._taken(self._reader.push(text))

    def finish(self, finished: Finished) -> tuple[Delta, ...]:
        """Return what was held back of what the client reads."""
        return self._taken(self._reader.finish(finished))

    def message(self) -> Message:
        """Return all that was written. Valid after ``finish``."""
        return fold(self._deltas)

    def ends_with_calls(self, finished: Finished) -> bool:
        """Whether the round ended because it calls tools, so that no call is missing. Valid after ``finish``."""
        return self._reader.ends_with_calls(finished)

    def is_clients(self, call: ToolCall) -> bool:
        """Whether a call is one of a tool of the client."""
        return call.name in self._client_tools

    def _taken(self, deltas: list[Delta]) -> tuple[Delta, ...]:
        named = [self._named(delta) for delta in deltas]
        self._deltas += named
        return tuple(visible for delta in named if (visible := self._for_client(delta)) is not None)

    def _named(self, delta: Delta) -> Delta:
        """Return the delta with an id that is unique in the answer; some models write the same ones again."""
        if not isinstance(delta, ToolCallBegin):
            return delta
        call_id = delta.id
        if call_id in self._used_ids:
            call_id = f"call_{secrets.token_hex(12)}"
        self._used_ids.add(call_id)
        return ToolCallBegin(delta.index, call_id, delta.name)

    def _for_client(self, delta: Delta) -> Delta | None:
        match delta:
            case ToolCallBegin(index, call_id, name):
                if name not in self._client_tools:
                    return None
                self._visible[index] = len(self._visible)
                return ToolCallBegin(self._visible[index], call_id, name)
            case ToolCallArguments(index, text):
                return ToolCallArguments(self._visible[index], text) if index in self._visible else None
            case ToolCallEnd(index):
                return ToolCallEnd(self._visible[index]) if index in self._visible else None
        return delta
