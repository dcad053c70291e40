"""Counts and speeds of answers, as the server measured them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the answers of a chat.

    Attributes:
        answers: number of answers.
        prompt_tokens: tokens of prompts that were computed, without those of a cache.
        cached_tokens: tokens of prompts that were not computed again.
        answer_tokens: tokens of answers, reasoning included.
        prompt_ms, answer_ms: the time that they took.
    """

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    prompt_ms: float = 0.0
    answer_ms: float = 0.0

    def plus(self, timings: Mapping[str, Any]) -> Totals:
        """Return the sums with one more answer."""
        return Totals(
            self.answers + 1,
            self.prompt_tokens + int(timings.get("prompt_n", 0)),
            self.cached_tokens + int(timings.get("cache_n", 0)),
            self.answer_tokens + int(timings.get("predicted_n", 0)),
            self.prompt_ms + float(timings.get("prompt_ms", 0)),
            self.answer_ms + float(timings.get("predicted_ms", 0)),
        )

    def lines(self) -> list[str]:
        """Return them as text."""
        answers = "1 answer" if self.answers == 1 else f"{self.answers} answers"
        return [
            f"{answers} in this chat",
            f"prompts: {self.prompt_tokens:,} tokens computed, {self.cached_tokens:,} from the cache"
            f"{_speed(self.prompt_tokens, self.prompt_ms)}",
            f"answers: {self.answer_tokens:,} tokens{_speed(self.answer_tokens, self.answer_ms)}",
        ]


def speed_line(timings: Mapping[str, Any]) -> str:
    """Return llama.cpp's ``timings`` of one answer as a line."""
    cached = int(timings.get("cache_n", 0))
    prompt, answer = int(timings.get("prompt_n", 0)), int(timings.get("predicted_n", 0))
    prompt_ms, answer_ms = float(timings.get("prompt_ms", 0)), float(timings.get("predicted_ms", 0))
    parts = [
        f"prompt: {prompt:,} tokens{f' (and {cached:,} cached)' if cached else ''}{_speed(prompt, prompt_ms)}",
        f"answer: {answer:,} tokens{_speed(answer, answer_ms)}",
        f"first token after {prompt_ms / 1000:.2f} s, {(prompt_ms + answer_ms) / 1000:.1f} s in all",
    ]
    return "; ".join(parts)


def _speed(tokens: int, milliseconds: float) -> str:
    return f", {1000 * tokens / milliseconds:,.1f} tokens/s" if milliseconds > 0 and tokens else ""
