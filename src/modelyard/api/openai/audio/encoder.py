"""Encodes the answers of /v1/audio: the text of speech, whole and as events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import orjson

from modelyard.api.openai.audio.prompts import spoken_text
from modelyard.api.openai.chunks import EventEncoder
from modelyard.api.openapi.answers_openai import SpeechText, SpeechUsage
from modelyard.api.serving.streaming import ChoiceEncoder
from modelyard.protocol.deltas import ContentDelta, Delta
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Prompt
from modelyard.protocol.values import Usage
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.token_stream import TokenStream

# Maximum length of the head, in which a model names the language before the words.
_MAX_HEAD_LENGTH = 64
_HEAD = "language "


class SpeechEncoder(EventEncoder, ChoiceEncoder):
    """Encodes one transcription or translation.

    Args:
        prompt: the prompt that is answered.
        task: "transcribe" or "translate".
        duration_s: length of the clip.
        language: English name of the language that the client named, in lower case; "" if it named none.
        response_format: the format of a whole answer.
    """

    def __init__(
        self,
        prompt: Prompt,
        task: Literal["transcribe", "translate"],
        duration_s: float,
        language: str,
        response_format: Literal["json", "text", "verbose_json"],
    ) -> None:
        self._prompt, self._task, self._format = prompt, task, response_format
        self._duration_s, self._language = duration_s, language
        # The text so far, and how many of its characters were sent. A possible head is held back.
        self._text, self._sent = "", 0
        self._has_words = False

    def open(self, generation: TokenStream) -> bytes:
        """Return nothing: a stream begins with its text."""
        self._reader = OutputReader(generation, self._prompt)
        return b""

    def text(self, text: str) -> bytes:
        """Return the event with the words in ``text``."""
        return self._events(self._reader.push(text), is_over=False)

    def close(self, finished: Finished) -> bytes:
        """Return the words that were held back, and the event with the whole text."""
        rest = self._events(self._reader.finish(finished), is_over=True)
        done = {
            "type": "transcript.text.done",
            "text": spoken_text(self._text)[1].strip(),
            "usage": usage_object(finished.usage),
        }
        return rest + _event(done)

    def end(self, finished: Sequence[Finished]) -> bytes:  # noqa: ARG002 (as every dialect has it)
        """Return nothing: ``close`` has returned the last event."""
        return b""

    def choice(self, text: str, finished: Finished) -> SpeechText | str:
        """Return the whole answer: an object, or the text."""
        detected, words = spoken_text(self._reader.whole(text, finished).content)
        words = words.strip()
        if self._format == "text":
            return words
        if self._format == "json":
            return {"text": words, "usage": usage_object(finished.usage)}
        return {
            "task": self._task,
            "language": "english" if self._task == "translate" else (self._language or detected.lower() or "unknown"),
            "duration": round(self._duration_s, 3),
            "text": words,
            "usage": {"type": "duration", "seconds": math.ceil(self._duration_s)},
        }

    def whole(self, choices: Sequence[SpeechText | str], finished: Sequence[Finished]) -> SpeechText | str:  # noqa: ARG002
        """Return the only answer."""
        return choices[0]

    def _events(self, deltas: Sequence[Delta], *, is_over: bool) -> bytes:
        self._text += "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))
        if not self._has_words:
            # Leading spaces and the head that names the language are not part of the words.
            head = self._text.lstrip()
            may_be_head = _HEAD.startswith(head[: len(_HEAD)]) or head.startswith(_HEAD)
            is_open = may_be_head and "<asr_text>" not in head and len(head) < _MAX_HEAD_LENGTH
            if not head or (is_open and not is_over):
                return b""
            self._has_words = True
            words = spoken_text(self._text)[1]
            self._sent = len(self._text) - len(words.lstrip())
        added, self._sent = self._text[self._sent :], len(self._text)
        return _event({"type": "transcript.text.delta", "delta": added}) if added else b""


def usage_object(usage: Usage) -> SpeechUsage:
    """Return the token counts in the shape of OpenAI's endpoints for speech."""
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"
