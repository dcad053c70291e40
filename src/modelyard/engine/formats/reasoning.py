"""Separates the reasoning at the start of an answer from the rest.

Reasoning opens the answer, or the prompt has opened it; its markers further on are content. White space around the
reasoning is dropped. Reasoning that is never closed extends to the end, or to the calls at its end: some models forget
to close it before they call. A call in reasoning that is closed later is a thought, so it is held back until then.

Hot path: ``push`` runs once a token. Behind the reasoning it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelyard.engine.formats.source import first_marker, partial_marker
from modelyard.protocol.deltas import ContentDelta, Delta, OutputParser, ReasoningDelta, ToolCallEnd


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
# Magistral 2509 and Ministral 3 (mistral); ByteDance Seed-OSS (seed); Gemma 4 (gemma); Cohere Command A (command);
# tencent/Hy3 (hunyuan); MiniMax M3 (minimax); Apertus; Apriel 1.5 and 1.6; Kimi K3; Solar Open.
REASONING: dict[str, ReasoningFormat] = {
    each.name: each
    for each in (
        ReasoningFormat("think", "<think>", "</think>", written="\n</think>\n\n"),
        ReasoningFormat("mistral", "[THINK]", "[/THINK]"),
        ReasoningFormat("seed", "<seed:think>", "</seed:think>"),
        ReasoningFormat("gemma", "<|channel>thought\n", "<channel|>", "<|channel>"),
        ReasoningFormat("command", "<|START_THINKING|>", "<|END_THINKING|>"),
        ReasoningFormat("hunyuan", "<think:opensource>", "</think:opensource>"),
        ReasoningFormat("minimax", "<mm:think>", "</mm:think>"),
        ReasoningFormat("apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
        ReasoningFormat("apriel", "Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]"),
        ReasoningFormat("kimi-k3", "<|open|>think<|sep|>", "<|close|>think<|sep|>"),
        ReasoningFormat("solar", "<|think|>", "<|end|>"),
    )
}


# The markers that a template of each format contains, where these are not the format's own.
_TEMPLATE_MARKERS: dict[str, tuple[str, ...]] = {
    "hunyuan": ("<think{}>",),
    "apriel": ("[BEGIN FINAL RESPONSE]",),
    "kimi-k3": ("<|open|>", "<|sep|>"),
    "solar": ("<|think|>", "<|tool_call:begin|>"),
}


def reasoning_of(chat_template: str) -> ReasoningFormat | None:
    """Return the reasoning format whose markers are in a chat template; None if there is none."""
    if "<|channel|>" in chat_template:
        return None  # Harmony: one parser reads its reasoning and its calls.
    for name, markers in _TEMPLATE_MARKERS.items():
        if all(marker in chat_template for marker in markers):
            return REASONING[name]
    for reasoning in REASONING.values():
        if reasoning.name not in _TEMPLATE_MARKERS and (
            reasoning.close in chat_template or reasoning.open in chat_template
        ):
            return reasoning
    return None


class ReasoningParser:
    """Separates the reasoning of one answer from the rest.

    Args:
        reasoning: its markers.
        inside: whether the prompt has opened it.
        also_ends: further markers that end it, without being part of it.
        openers: texts that begin a call.
        new_trial: makes a parser for what may be a call within the reasoning.
    """

    __slots__ = (
        "_also_ends",
        "_ends",
        "_has_reasoning",
        "_held",
        "_is_open",
        "_new_trial",
        "_openers",
        "_reasoning",
        "_space",
        "_state",
        "_trial",
    )

    def __init__(
        self,
        reasoning: ReasoningFormat,
        *,
        inside: bool,
        also_ends: Sequence[str] = (),
        openers: Sequence[str] = (),
        new_trial: Callable[[], OutputParser] | None = None,
    ) -> None:
        self._reasoning = reasoning
        self._also_ends = frozenset(also_ends)
        self._new_trial = new_trial
        self._openers = frozenset(openers) - self._also_ends if new_trial is not None else frozenset()
        self._ends = (reasoning.close, *also_ends, *self._openers)
        self._state = "inside" if inside else "before"
        # Whether the answer may still repeat the opening marker that ends the prompt.
        self._is_open = inside
        self._held = ""
        self._space: list[str] = []
        self._has_reasoning = False
        self._trial: _Trial | None = None

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        if self._state == "behind":
            return [ContentDelta(text)] if text else []
        out: list[Delta] = []
        self._held += text
        if self._state == "before":
            self._before(out)
        while self._state in ("inside", "trial") and self._step(out):
            pass
        if self._state == "closed":
            self._closed(out)
        return out

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """Return the deltas of the text that was held back."""
        out: list[Delta] = []
        self._is_open = False
        if self._trial is not None:
            calls = self._trial.finish(is_cut=is_cut)
            if calls is not None:
                return calls
            # No other text in it is tried: the work would grow with the square of its length.
            self._held, self._trial, self._state = self._trial.text, None, "inside"
            self._openers, self._ends = frozenset(), (self._reasoning.close, *self._also_ends)
        if self._state == "inside":
            self._inside(out, final=True)
            if self._state == "closed":
                self._closed(out)
        elif self._state == "before":
            self._answer(out, "".join(self._space) + self._held)
        return out

    def _before(self, out: list[Delta]) -> None:
        words = self._held.lstrip()
        if len(words) < len(self._held):
            self._space.append(self._held[: len(self._held) - len(words)])
            self._held = words
        opening, closing = self._reasoning.open, self._reasoning.close
        if words.startswith(opening):
            self._held = words[len(opening) :]
            self._space.clear()
            self._state = "inside"
        elif words.startswith(closing):
            # A model that decides by itself whether to reason closes at once what nothing has opened.
            self._held = words[len(closing) :]
            self._space.clear()
            self._state = "closed"
        elif not opening.startswith(words) and not closing.startswith(words):
            self._answer(out, "".join(self._space) + words)

    def _step(self, out: list[Delta]) -> bool:
        """Read on in the reasoning, or in what may be a call within it; return False if more text is needed."""
        if self._trial is None:
            return self._inside(out, final=False)
        text, self._held = self._held, ""
        outcome = self._trial.push(text)
        if outcome is None:
            return False
        thought, rest = outcome
        self._trial = None
        self._think(out, thought)
        is_closed = rest.startswith(self._reasoning.close)
        self._held = rest.removeprefix(self._reasoning.close)
        self._state = "closed" if is_closed else "inside"
        return bool(self._held) and not is_closed

    def _inside(self, out: list[Delta], *, final: bool) -> bool:
        """Pass reasoning on up to the next marker, and return whether there is one that may begin a call."""
        if self._is_open:
            words, marker = self._held.lstrip(), self._reasoning.open
            if marker.startswith(words) and words != marker:
                return False
            self._is_open = False
            self._held = words.removeprefix(marker)
        at, marker = first_marker(self._held, self._ends)
        if not marker:
            keep = 0 if final else partial_marker(self._held, self._ends)
            self._think(out, self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            return False
        self._think(out, self._held[:at])
        if marker in self._openers and self._new_trial is not None:
            self._held = self._held[at:]
            self._trial = _Trial(self._new_trial(), marker, self._reasoning.close)
            self._state = "trial"
            return True
        self._held = self._held[at if marker in self._also_ends else at + len(marker) :]
        self._space.clear()
        self._state = "closed"
        return False

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


class _Trial:
    """Reads what may be a call within reasoning.

    Args:
        parser: parses it.
        opener: the marker that it begins with.
        close: the marker that closes reasoning. It makes all text before it a thought.
    """

    __slots__ = ("_close", "_deltas", "_has_call", "_opener", "_parser", "_parts", "_tail")

    def __init__(self, parser: OutputParser, opener: str, close: str) -> None:
        self._parser, self._opener, self._close = parser, opener, close
        self._parts: list[str] = []
        self._deltas: list[Delta] = []
        self._has_call = False
        # The end of the text, which may be the beginning of the closing marker.
        self._tail = ""

    @property
    def text(self) -> str:
        """All text of the trial."""
        return "".join(self._parts)

    def push(self, text: str) -> tuple[str, str] | None:
        """Read ``text``. Return the thought and the text behind it once it is certain that there is no call."""
        searched = self._tail + text
        if (found := searched.find(self._close)) >= 0:
            whole = self.text + text
            end = len(whole) - len(searched) + found
            return whole[:end], whole[end:]
        self._tail = searched[max(0, len(searched) - len(self._close) + 1) :]
        at = 0
        while not self._has_call and at < len(text):
            # One character at a time, to know where a call ends. Reasoning with calls is rare.
            self._parts.append(text[at])
            deltas = self._parser.push(text[at])
            at += 1
            self._deltas += deltas
            self._has_call = any(isinstance(delta, ToolCallEnd) for delta in deltas)
            if not self._has_call and _says_something(deltas):
                read = self.text
                return self._opener, read[len(self._opener) :] + text[at:]
        rest = text[at:]
        if not rest:
            return None
        self._parts.append(rest)
        self._deltas += self._parser.push(rest)
        return None

    def finish(self, *, is_cut: bool) -> list[Delta] | None:
        """Return the deltas of the calls at the end of reasoning that was not closed; None if there are none."""
        self._deltas += self._parser.finish(is_cut=is_cut)
        has_call = any(isinstance(delta, ToolCallEnd) for delta in self._deltas)
        return self._deltas if has_call or not self._deltas else None


def _says_something(deltas: list[Delta]) -> bool:
    return any(isinstance(delta, ContentDelta) and not delta.text.isspace() for delta in deltas)


class ReasoningThenRest:
    """Parses reasoning first, and the content behind it with another parser."""

    __slots__ = ("_reasoning", "_rest")

    def __init__(self, reasoning: OutputParser, rest: OutputParser) -> None:
        self._reasoning = reasoning
        self._rest = rest

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        return self._pass(self._reasoning.push(text))

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """Return the deltas of the text that either parser held back."""
        return self._pass(self._reasoning.finish(is_cut=is_cut)) + self._rest.finish(is_cut=is_cut)

    def _pass(self, deltas: list[Delta]) -> list[Delta]:
        out: list[Delta] = []
        for delta in deltas:
            out.extend(self._rest.push(delta.text) if isinstance(delta, ContentDelta) else (delta,))
        return out
