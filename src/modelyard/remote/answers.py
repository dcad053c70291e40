"""Reads the answers of OpenAI's API, and what else servers send in its shape. Pure.

What an answer lacks is left out, and what it has too much is not read: servers differ. Only what makes it no answer at
all is an error.

Hot path: ``TextAnswer.read`` runs once a chunk, and takes 2 µs.
"""

from __future__ import annotations

import base64
import json
import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from modelyard.protocol.delta_text import mark_of, marked, marked_call
from modelyard.protocol.deltas import ToolCall
from modelyard.protocol.events import Finished, Token
from modelyard.protocol.values import FinishReason, SequenceId, TokenLogprob, Usage

_REASONING_FIELDS: Final = ("reasoning_content", "reasoning")

# Logs and answers have the code as it is.
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

MAX_PARAM_LENGTH: Final = 200
"""Characters of the name of a field in an error."""

MAX_CALLS: Final = 1024
"""Tool calls of one answer; servers number them, and a number may be anything."""


class NoAnswer(ValueError):
    """What a server sent is no answer; the text says what it is."""


class TextAnswer:
    """One answer of text, chunk by chunk.

    Args:
        sequence: number of the request.
        is_chat: whether it answers a chat, so that its text gets the marks of ``protocol.delta_text``.
        max_calls: limit of its tool calls; None: none.

    Attributes:
        pieces: how many chunks had text.
        reason: why it ended; None: it has not ended yet.
        usage: what the server counted; None: it has not said.
    """

    def __init__(self, sequence: SequenceId, *, is_chat: bool, max_calls: int | None = None) -> None:
        self.pieces = 0
        self.reason: FinishReason | None = None
        self.usage: Usage | None = None
        self._sequence, self._is_chat, self._max_calls = sequence, is_chat, max_calls
        self._is_reasoning = False
        self._calls: dict[int, _Call] = {}
        self._written = 0
        self._stop: str | None = None

    def read(self, chunk: Any) -> Token | None:
        """Return the text of a chunk, or of a whole answer; None: it has none.

        Raises:
            NoAnswer: it is no chunk.
        """
        if not isinstance(chunk, Mapping):
            raise NoAnswer(f"{json.dumps(chunk)[:200]} in place of a chunk")
        if isinstance(usage := chunk.get("usage"), Mapping):
            self.usage = _usage(usage)
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            if self.usage is not None or "id" in chunk or "object" in chunk:
                return None
            raise NoAnswer(f"a chunk without choices: {json.dumps(dict(chunk))[:200]}")
        choice = choices[0] if choices else None
        if not isinstance(choice, Mapping):
            return None
        logprobs = _logprobs(choice.get("logprobs"))
        text = self._chat_text(choice) if self._is_chat else _text(choice.get("text"))
        if isinstance(reason := choice.get("finish_reason"), str):
            self.reason = "length" if reason == "length" else "stop"
            stop = choice.get("stop_reason")
            self._stop = stop if isinstance(stop, str) else None
            text += self._whole_calls(is_cut=reason == "length")
        if not text and not logprobs:
            return None
        self.pieces += 1
        return Token(self._sequence, text, logprobs)

    def finished(self) -> Finished:
        """Return the end of the answer, which must have ended."""
        assert self.reason is not None
        return Finished(self._sequence, self.reason, self.usage or Usage(0, 0, 0), self._stop)

    @property
    def used(self) -> Usage:
        """What an answer has used that ends before its server counts: a token for each piece that arrived."""
        return self.usage or Usage(0, self.pieces, 0)

    def _chat_text(self, choice: Mapping[str, Any]) -> str:
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            delta = choice.get("message")
            if not isinstance(delta, Mapping):
                return ""
        parts: list[str] = []
        reasoning = next((text for name in _REASONING_FIELDS if (text := _text(delta.get(name)))), "")
        if reasoning:
            self._switch(parts, is_reasoning=True)
            parts.append(marked(reasoning))
        if content := _content(delta.get("content")) or _text(delta.get("refusal")):
            self._switch(parts, is_reasoning=False)
            parts.append(marked(content))
        if calls := delta.get("tool_calls"):
            self._collect(calls)
            parts.append(self._earlier_calls())
        return "".join(parts)

    def _switch(self, parts: list[str], *, is_reasoning: bool) -> None:
        if is_reasoning is not self._is_reasoning:
            self._is_reasoning = is_reasoning
            parts.append(mark_of(is_reasoning=is_reasoning))

    def _collect(self, calls: Any) -> None:
        """Take the parts of calls in a chunk; servers that send whole calls may leave out their numbers."""
        for part in calls if isinstance(calls, list) else ():
            if not isinstance(part, Mapping):
                continue
            function = part.get("function")
            function = function if isinstance(function, Mapping) else {}
            index, call_id, name = part.get("index"), _text(part.get("id")), _text(function.get("name"))
            if type(index) is not int:
                index = max(self._calls, default=-1) + bool(name or not self._calls)
            if index not in self._calls and len(self._calls) >= MAX_CALLS:
                raise NoAnswer(f"more than {MAX_CALLS} tool calls")
            call = self._calls.setdefault(index, _Call())
            call.id, call.name = call.id or call_id, call.name or name
            arguments = function.get("arguments")
            if isinstance(arguments, Mapping):
                arguments = json.dumps(arguments)
            call.arguments.append(_text(arguments))

    def _earlier_calls(self) -> str:
        """Return the calls behind which another one has begun, as far as they are whole: parts may be mixed."""
        *earlier, _ = sorted(self._calls) or [0]
        return "".join(self._written_call(index) for index in earlier if self._calls[index].is_closed)

    def _whole_calls(self, *, is_cut: bool) -> str:
        """Return the calls that were not returned yet; where the answer was cut off, those that are whole."""
        left = [index for index in sorted(self._calls) if not self._calls[index].is_written]
        if is_cut:
            left = [index for index in left if self._calls[index].is_whole]
        return "".join(map(self._written_call, left))

    def _written_call(self, index: int) -> str:
        call = self._calls[index]
        is_over = self._max_calls is not None and self._written >= self._max_calls
        if call.is_written or is_over or not call.name:
            return ""
        call.is_written = True
        self._written += 1
        arguments = "".join(call.arguments) or "{}"
        return marked_call(ToolCall(call.id or f"call_{secrets.token_hex(12)}", call.name, arguments))


class _Call:
    """A tool call as far as it has arrived."""

    __slots__ = ("arguments", "id", "is_written", "name")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []
        self.is_written = False

    @property
    def is_closed(self) -> bool:
        """Whether no more of it can come: its arguments are there, and complete."""
        return any(self.arguments) and self.is_whole

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are an object, or none have come."""
        try:
            return isinstance(json.loads("".join(self.arguments) or "{}"), dict)
        except ValueError:
            return False


def embeddings_of(answer: Any, inputs: int) -> tuple[npt.NDArray[np.float32], int]:
    """Return the vectors of an answer, in the order of the inputs, and the tokens of the prompt.

    Raises:
        NoAnswer: there is not a vector for each input, or they differ in length.
    """
    match answer:
        case {"data": [*data]} if len(data) == inputs:
            pass
        case _:
            raise NoAnswer(f"an answer without {inputs} embeddings")
    ordered = sorted(data, key=lambda each: _index(each, 0)) if all(_index(each, -1) >= 0 for each in data) else data
    try:
        vectors = np.array([_vector(each["embedding"]) for each in ordered], dtype=np.float32)
    except (KeyError, TypeError, ValueError):
        raise NoAnswer("embeddings that are no lists of numbers of one length") from None
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise NoAnswer("embeddings that are no lists of numbers")
    return vectors, _prompt_tokens(answer)


def scores_of(answer: Any, documents: int) -> tuple[npt.NDArray[np.float32], int]:
    """Return the scores of an answer in the order of the documents, and the tokens of the prompt.

    Raises:
        NoAnswer: a document has no score.
    """
    results = answer.get("results", answer.get("data")) if isinstance(answer, Mapping) else answer
    scores = np.full(documents, np.nan, dtype=np.float32)
    for each in results if isinstance(results, list) else ():
        index = _index(each, -1)
        if 0 <= index < documents:
            score = each.get("relevance_score", each.get("score"))
            scores[index] = score if isinstance(score, int | float) else math.nan
    if np.isnan(scores).any():
        raise NoAnswer(f"an answer without scores of all {documents} documents")
    return scores, _prompt_tokens(answer)


def error_of(answer: Any) -> tuple[str, str, str | None]:
    """Return the message, the code and the field of an error; "" and None where it has none of them."""
    error = answer.get("error", answer) if isinstance(answer, Mapping) else answer
    if isinstance(error, str):
        return error, "", None
    if not isinstance(error, Mapping):
        return "", "", None
    message = error.get("message") or error.get("detail") or answer.get("message") or answer.get("detail") or ""
    code, param = error.get("code"), error.get("param")
    text = message if isinstance(message, str) else json.dumps(message)
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
    return text, code, param[:MAX_PARAM_LENGTH] if isinstance(param, str) else None


def error_status(answer: Any) -> int | None:
    """Return the HTTP status that an error within a stream names as its code, as llama.cpp and vLLM do."""
    match answer:
        case {"error": {"code": int() as code}} if 400 <= code < 600:
            return code
    return None


def _index(each: Any, default: int) -> int:
    index = each.get("index") if isinstance(each, Mapping) else None
    return index if type(index) is int else default


def _vector(value: Any) -> Any:
    return np.frombuffer(base64.b64decode(value), dtype="<f4") if isinstance(value, str) else value


def _prompt_tokens(answer: Any) -> int:
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    if not isinstance(usage, Mapping):
        return 0
    return _count(usage.get("prompt_tokens")) or _count(usage.get("total_tokens"))


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(prompt.get("cached_tokens")) if isinstance(prompt, Mapping) else 0,
        _count(completion.get("reasoning_tokens")) if isinstance(completion, Mapping) else 0,
    )


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _content(value: Any) -> str:
    """Return the text of a content, which may be a list of parts."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, Mapping))
    return _text(value)


def _logprobs(logprobs: Any) -> tuple[TokenLogprob, ...]:
    match logprobs:
        case {"content": [*tokens]}:
            return tuple(_chat_logprob(each) for each in tokens if isinstance(each, Mapping))
        case {"tokens": [*tokens], "token_logprobs": [*values]}:
            tops = logprobs.get("top_logprobs") or [None] * len(tokens)
            return tuple(
                TokenLogprob(_text(token).encode("utf-8", "surrogatepass"), _number(value), _listed_top(top))
                for token, value, top in zip(tokens, values, tops, strict=False)
            )
    return ()


def _chat_logprob(token: Mapping[str, Any]) -> TokenLogprob:
    tops = token.get("top_logprobs")
    return TokenLogprob(
        _bytes(token),
        _number(token.get("logprob")),
        tuple((_bytes(top), _number(top.get("logprob"))) for top in tops if isinstance(top, Mapping))
        if isinstance(tops, list)
        else (),
    )


def _listed_top(top: Any) -> tuple[tuple[bytes, float], ...]:
    if not isinstance(top, Mapping):
        return ()
    pairs = ((str(token).encode("utf-8", "surrogatepass"), _number(value)) for token, value in top.items())
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def _bytes(token: Mapping[str, Any]) -> bytes:
    match token.get("bytes"):
        case [*codes] if all(type(code) is int and 0 <= code < 256 for code in codes):
            return bytes(codes)
    return _text(token.get("token")).encode("utf-8", "surrogatepass")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
