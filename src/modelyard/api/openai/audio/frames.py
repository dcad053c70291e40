"""The text of speech as OpenAI's clients read it, whole and as events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import orjson

from modelyard.api.openai.audio.prompts import spoken_text
from modelyard.api.openai.chunks import EventFrames
from modelyard.api.serving.output_reader import OutputReader
from modelyard.protocol.deltas import ContentDelta, Delta, ToolCallBroken
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Prompt
from modelyard.protocol.values import Usage
from modelyard.yard.requests.generation import TokenStream

# What a model writes of the language before the words has no more characters.
_MAX_HEAD_LENGTH = 64
_HEAD = "language "


class SpeechFrames(EventFrames):
    """Writes one transcription or translation.

    Args:
        prompt: what is answered.
        task: what is done.
        duration_s: of the clip.
        language: that the client named; "" where it named none.
        response_format: of a whole answer.
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
        # The text so far, and how much of it was sent; what may still be a head is held back.
        self._text, self._sent = "", 0
        self._has_words = False

    def open(self, generation: TokenStream) -> bytes:
        """Nothing: a stream begins with its text."""
        self._reader = OutputReader(generation, self._prompt)
        return b""

    def text(self, text: str) -> bytes:
        """An event with what was added to the words."""
        return self._events(self._reader.push(text), is_over=False)

    def close(self, finished: Finished) -> bytes:
        """What was held back, and the event with all of the text."""
        rest = self._events(self._reader.finish(), is_over=True)
        done = {
            "type": "transcript.text.done",
            "text": spoken_text(self._text)[1].strip(),
            "usage": usage(finished.usage),
        }
        return rest + _event(done)

    def end(self, finished: Sequence[Finished]) -> bytes:  # noqa: ARG002 (as every dialect has it)
        """Nothing: the event before was the last."""
        return b""

    def choice(self, text: str, finished: Finished) -> Any:
        """The whole answer: an object, or the text."""
        heard, words = spoken_text(self._reader.whole(text).content)
        words = words.strip()
        if self._format == "text":
            return words
        if self._format == "json":
            return {"text": words, "usage": usage(finished.usage)}
        return {
            "task": self._task,
            "language": "english" if self._task == "translate" else (self._language or heard.lower() or "unknown"),
            "duration": round(self._duration_s, 3),
            "text": words,
            "usage": {"type": "duration", "seconds": math.ceil(self._duration_s)},
        }

    def whole(self, choices: Sequence[Any], finished: Sequence[Finished]) -> Any:  # noqa: ARG002
        """The answer by itself."""
        return choices[0]

    def _events(self, deltas: Sequence[Delta], *, is_over: bool) -> bytes:
        self._text += "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta | ToolCallBroken))
        if not self._has_words:
            # Spaces at the beginning, and a head that names the language, are no words.
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


def usage(used: Usage) -> dict[str, Any]:
    """Token counts of OpenAI's endpoints for speech."""
    return {
        "type": "tokens",
        "input_tokens": used.prompt_tokens,
        "output_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"
