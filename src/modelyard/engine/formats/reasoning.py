"""Separates the reasoning at the start of an answer from the rest.

Reasoning opens the answer, or the prompt has opened it; its markers further on are content. White space around the
reasoning is dropped. Reasoning that is never closed extends to the end.

Hot path: ``push`` runs once a token. Behind the reasoning it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.engine.formats.source import first_marker, partial_marker
from modelyard.protocol.deltas import ContentDelta, Delta, OutputParser, ReasoningDelta


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """The markers around the reasoning of a family of models.

    Attributes:
        token: the part of ``open`` that is a control token in most vocabularies; "" if all of it is.
        written: ``close`` with the white space around it, as models write it; "" if there is none.
    """

    name: str
    open: str
    close: str
    token: str = ""
    written: str = ""

    @property
    def closing(self) -> str:
        """The text that ends reasoning when its budget is used up."""
        return self.written or self.close

    @property
    def markers(self) -> frozenset[str]:
        """Both markers, as far as they may be control tokens."""
        return frozenset((self.token or self.open, self.close))

    def opened_by(self, prompt: str) -> bool:
        """Whether the prompt ends with the opening marker, so that the model continues within reasoning."""
        return prompt.rstrip().endswith(self.open.rstrip())


# Sources: the chat templates of DeepSeek R1, Qwen 3, GLM 4.5, Kimi K2 Thinking, Granite 4 and others (think);
# Magistral 2509 and Ministral 3 (mistral); ByteDance Seed-OSS (seed); Gemma 4 (gemma); Cohere Command A (command).
REASONING: dict[str, ReasoningFormat] = {
    each.name: each
    for each in (
        ReasoningFormat("think", "<think>", "</think>", written="\n</think>\n\n"),
        ReasoningFormat("mistral", "[THINK]", "[/THINK]"),
        ReasoningFormat("seed", "<seed:think>", "</seed:think>"),
        ReasoningFormat("gemma", "<|channel>thought\n", "<channel|>", "<|channel>"),
        ReasoningFormat("command", "<|START_THINKING|>", "<|END_THINKING|>"),
    )
}


def reasoning_of(chat_template: str) -> ReasoningFormat | None:
    """Return the reasoning format whose markers are in a chat template; None if there is none."""
    if "<|channel|>" in chat_template:
        return None  # Harmony: one parser reads its reasoning and its calls.
    for reasoning in REASONING.values():
        if reasoning.close in chat_template or reasoning.open in chat_template:
            return reasoning
    return None


class ReasoningParser:
    """Separates the reasoning of one answer from the rest.

    Args:
        reasoning: its markers.
        inside: whether the prompt has opened it.
        also_ends: further markers that end it, without being part of it.
    """

    __slots__ = ("_also_ends", "_ends", "_has_reasoning", "_held", "_reasoning", "_space", "_state")

    def __init__(self, reasoning: ReasoningFormat, *, inside: bool, also_ends: Sequence[str] = ()) -> None:
        self._reasoning = reasoning
        self._also_ends = frozenset(also_ends)
        self._ends = (reasoning.close, *also_ends)
        self._state = "inside" if inside else "before"
        self._held = ""
        self._space: list[str] = []
        self._has_reasoning = False

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        if self._state == "behind":
            return [ContentDelta(text)] if text else []
        out: list[Delta] = []
        self._held += text
        if self._state == "before":
            self._before(out)
        if self._state == "inside":
            self._inside(out, final=False)
        if self._state == "closed":
            self._closed(out)
        return out

    def finish(self) -> list[Delta]:
        """Return the deltas of the text that was held back."""
        out: list[Delta] = []
        if self._state == "inside":
            self._inside(out, final=True)
        elif self._state == "before":
            self._answer(out, "".join(self._space) + self._held)
        return out

    def _before(self, out: list[Delta]) -> None:
        words = self._held.lstrip()
        if len(words) < len(self._held):
            self._space.append(self._held[: len(self._held) - len(words)])
            self._held = words
        marker = self._reasoning.open
        if words.startswith(marker):
            self._held = words[len(marker) :]
            self._space.clear()
            self._state = "inside"
        elif not marker.startswith(words):
            self._answer(out, "".join(self._space) + words)

    def _inside(self, out: list[Delta], *, final: bool) -> None:
        at, marker = first_marker(self._held, self._ends)
        if marker:
            self._think(out, self._held[:at])
            self._held = self._held[at if marker in self._also_ends else at + len(marker) :]
            self._space.clear()
            self._state = "closed"
            return
        keep = 0 if final else partial_marker(self._held, self._ends)
        self._think(out, self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]

    def _closed(self, out: list[Delta]) -> None:
        self._held = self._held.lstrip()
        if self._held:
            self._answer(out, self._held)

    def _think(self, out: list[Delta], text: str) -> None:
        if not self._has_reasoning:
            text = text.lstrip()
        words = text.rstrip()
        if words:
            out.append(ReasoningDelta("".join(self._space) + words))
            self._space.clear()
            self._has_reasoning = True
        if len(words) < len(text):
            self._space.append(text[len(words) :])

    def _answer(self, out: list[Delta], text: str) -> None:
        self._state = "behind"
        self._held = ""
        self._space.clear()
        if text:
            out.append(ContentDelta(text))


class ReasoningThenRest:
    """Parses reasoning first, and the content behind it with another parser."""

    __slots__ = ("_reasoning", "_rest")

    def __init__(self, reasoning: OutputParser, rest: OutputParser) -> None:
        self._reasoning = reasoning
        self._rest = rest

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        return self._pass(self._reasoning.push(text))

    def finish(self) -> list[Delta]:
        """Return the deltas of the text that either parser held back."""
        return self._pass(self._reasoning.finish()) + self._rest.finish()

    def _pass(self, deltas: list[Delta]) -> list[Delta]:
        out: list[Delta] = []
        for delta in deltas:
            out.extend(self._rest.push(delta.text) if isinstance(delta, ContentDelta) else (delta,))
        return out
