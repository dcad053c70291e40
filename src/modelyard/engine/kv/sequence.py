"""One request's tokens and how far they have been computed."""

from __future__ import annotations

import collections.abc
from typing import Protocol

from modelyard.engine.kv.cache import Slot
from modelyard.engine.kv.placeholders import ImageSpan, Pictures, text_run
from modelyard.protocol.values import SequenceId, Usage


class Sequence:
    """A prompt and the answer so far.

    Attributes:
        id: its number, unique in the yard.
        arrival: its place in the order of arrival in this engine; the highest is preempted first.
        priority: a higher one goes first in line.
        tokens: the prompt, then the answer.
        prompt_length: tokens of the prompt.
        slot: its place in the KV cache while it runs; None while it waits.
        cached_tokens: tokens of the prompt that were found in the cache when it first ran.
        to_prefill: tokens that were to be computed when it was given its slot.
        guesser: guesses what comes next; None: nothing is guessed for it.
        was_sought: whether parked prefixes were searched for its beginning.
        is_alone: its next token is computed without guesses.
        pictures: what the placeholders among the tokens stand for.
        salt: that of its request; see ``Submit.cache_salt``.
    """

    __slots__ = (
        "_skipped",
        "arrival",
        "cached_tokens",
        "id",
        "is_alone",
        "pictures",
        "priority",
        "prompt_length",
        "proposer",
        "salt",
        "slot",
        "to_prefill",
        "tokens",
        "was_sought",
    )

    def __init__(
        self,
        sequence: SequenceId,
        arrival: int,
        prompt: list[int],
        priority: int = 0,
        pictures: Pictures | None = None,
        salt: str = "",
    ) -> None:
        self.id = sequence
        self.arrival = arrival
        self.priority = priority
        self.tokens = list(prompt)
        self.prompt_length = len(prompt)
        self.slot: Slot | None = None
        self.cached_tokens: int | None = None
        self.to_prefill = 0
        self.proposer: Proposer | None = None
        self.was_sought = False
        self.is_alone = False
        self.pictures = pictures or {}
        self.salt = salt
        # Where pictures end, and how many positions fewer than tokens each has.
        self._skipped = tuple(
            (at + picture.length, picture.length - picture.positions)
            for at, token in enumerate(prompt)
            if token < 0 and (picture := self.pictures.get(token)) is not None
        )

    @property
    def fed(self) -> int:
        """Tokens that are in the KV cache."""
        return len(self.slot.tokens) if self.slot else 0

    @property
    def pending(self) -> int:
        """Tokens to feed before the next one can be sampled: 1 while it decodes, more while it prefills."""
        return len(self.tokens) - self.fed

    def position_at(self, index: int) -> int:
        """The position of the token of that index, which is the first of a picture or outside of all."""
        return index - sum(skipped for end, skipped in self._skipped if end <= index)

    @property
    def next_picture(self) -> ImageSpan | None:
        """What is to be fed next, where that is a picture."""
        return self.pictures.get(self.tokens[self.fed]) if self.pictures and self.pending else None

    def text_within(self, count: int) -> int:
        """How many of the next ``count`` tokens come before a picture."""
        return text_run(self.tokens, self.fed, count) if self.pictures else count

    @property
    def answer_length(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(self.prompt_length, self.answer_length, self.cached_tokens or 0)


class Proposer(Protocol):
    """Guesses what comes next in one sequence, and learns how good it is at that."""

    @property
    def share(self) -> float:
        """The probability of each token of the last guess, if those before it hold."""

    def propose(self, tokens: collections.abc.Sequence[int], most: int) -> list[int]:
        """At most ``most`` tokens that may follow ``tokens``."""

    def record_verified(self, proposed: int, accepted: int) -> None:
        """Of the last guess ``guessed`` tokens were verified, and the first ``held`` of them were right."""
