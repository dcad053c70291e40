"""Tokenises prompts so that only what a template wrote becomes control tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol

from modelyard.engine.chat.marked_text import MarkedText, from_runs, is_by_template, runs_of, unmarked
from modelyard.engine.input.partition import Partition
from modelyard.engine.llama import SpecialToken


class SupportsPrompts(Protocol):
    """The part of ``llama.Model`` that tokenising prompts needs. All of it may be called on any thread."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Return the token ids of ``text``."""

    def control_text(self, token: int) -> str:
        """Return the text that stands for a control token, or for the unknown one; "" for all others."""

    def special_tokens(self) -> Sequence[SpecialToken]:
        """Return the special tokens in the order in which they are looked for."""

    def begin_tokens(self) -> list[int]:
        """Return what the vocabulary puts before a text: its begin token, or nothing."""

    def begin_token(self) -> str:
        """Return the text of the token that begins a sequence; "" where the vocabulary has none."""


class PromptTokenizer:
    """Tokenises the prompts of one model. Its methods may be called on any thread.

    No token that ends a sequence is put behind a prompt, whatever the vocabulary puts behind other texts: an answer
    follows.
    """

    def __init__(self, vocabulary: SupportsPrompts) -> None:
        self._vocabulary = vocabulary
        self._control_texts: dict[int, str] = {}
        self._begin_token = vocabulary.begin_token()
        self.begin_tokens = vocabulary.begin_tokens()

    def begins(self, text: str) -> bool:
        """Whether a prompt brings its begin token: a second one would derail the model.

        In what a template rendered, it counts if the template wrote it, also behind white space.
        """
        if not self._begin_token:
            return False
        if not isinstance(text, MarkedText):
            return text.startswith(self._begin_token)
        start = text.lstrip()[: len(self._begin_token)]
        return start == self._begin_token and is_by_template(start, 0, len(start))

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a part of a prompt.

        In a ``MarkedText`` only what the template wrote becomes control tokens, and in other text all that reads like
        one.
        """
        if not isinstance(text, MarkedText):
            return self._vocabulary.tokenize(text, add_special=False)
        text = _with_replacements(text)
        tokens = self._vocabulary.tokenize(unmarked(text), add_special=False)
        if all(_is_always_by_template(control, text) for control in self._controls_in(tokens)):
            return tokens
        tokens = []
        for part in self._partition.divide(text):
            tokens += [part.id] if isinstance(part, SpecialToken) else self.plain(part)
        return tokens

    def plain(self, text: str) -> list[int]:
        """Return the token ids of ``text``, none of which is a control token."""
        tokens = self._vocabulary.tokenize(text, add_special=False, parse_special=False)
        # SentencePiece's merges may end at the text of a control token. Without its whole text, they cannot.
        controls = [control for control in self._controls_in(tokens) if len(control) > 1 and control in text]
        if not controls:
            return tokens
        return [token for part in _cut_within(text, controls) for token in self.plain(part)]

    def _controls_in(self, tokens: Iterable[int]) -> list[str]:
        return [text for token in set(tokens) if (text := self._control_text(token))]

    def _control_text(self, token: int) -> str:
        text = self._control_texts.get(token)
        if text is None:
            text = self._control_texts[token] = self._vocabulary.control_text(token)
        return text

    @cached_property
    def _partition(self) -> Partition:
        return Partition(self._vocabulary.special_tokens())


def _with_replacements(text: MarkedText) -> MarkedText:
    """Return ``text`` with "?" for each lone surrogate, as it is tokenised: that must not complete a control token."""
    whole = text.encode("utf-8", "replace").decode()
    return text if whole == text else from_runs(whole, runs_of(text))


def _is_always_by_template(control: str, text: MarkedText) -> bool:
    """Whether the template wrote all that reads like ``control`` in ``text``."""
    plain = unmarked(text)
    at = plain.find(control)
    while at >= 0:
        if not is_by_template(text, at, at + len(control)):
            return False
        at = plain.find(control, at + 1)
    return True


def _cut_within(text: str, controls: Sequence[str]) -> list[str]:
    """Return the parts of ``text`` with a cut behind the first character of each of ``controls``."""
    return re.split("|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in controls), text)
