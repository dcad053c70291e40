"""Ends the reasoning of an answer at its budget: the tokens that close it are then the only ones to choose from.

Hot path: a budget costs a comparison a token behind the reasoning, and the search for a marker within it. Answers
without a budget have none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama import Context
from modelyard.engine.output.draws import Draw, certainty_of
from modelyard.engine.output.sampler import Sampler


@dataclass(frozen=True, slots=True)
class ReasoningSpan:
    """How the reasoning of an answer is marked.

    Attributes:
        open, close: its markers, as they appear in the bytes of tokens.
        closing: tokens that close it.
        is_open: whether the prompt has opened it.
    """

    open: bytes
    close: bytes
    closing: tuple[int, ...]
    is_open: bool


class ReasoningCounter:
    """Counts the tokens of an answer that are reasoning and its markers, as they come.

    Args:
        span: the markers of the reasoning.

    Attributes:
        is_over: whether no token that follows is reasoning.
    """

    __slots__ = ("_is_open", "_span", "_tokens", "_unread", "is_over")

    def __init__(self, span: ReasoningSpan) -> None:
        self._span = span
        self._is_open = span.is_open
        self._tokens = 0
        # What may be the beginning of a marker.
        self._unread = b""
        self.is_over = False

    @property
    def count(self) -> int:
        """The number of tokens so far."""
        return self._tokens if self._is_open else 0

    def push(self, piece: bytes) -> None:
        """Count a token, whose bytes are ``piece``, unless the reasoning is over."""
        if self.is_over:
            return
        self._tokens += 1
        self._unread += piece
        if not self._is_open:
            self._find_open()
        if self._is_open:
            self.is_over = self._span.close in self._unread
            self._unread = self._unread[-len(self._span.close) :]

    def _find_open(self) -> None:
        self._unread = self._unread.lstrip()
        if self._unread.startswith(self._span.open):
            self._is_open = True
            self._unread = self._unread[len(self._span.open) :]
        else:
            self.is_over = not self._span.open.startswith(self._unread)


class ReasoningBudget:
    """Counts the tokens of the reasoning of one answer, and says which token must come next once they are used up.

    Args:
        span: the markers of the reasoning.
        limit: how many tokens it may have; its markers do not count, and a character is not split.
        piece: returns the bytes of a token. Replaced when the answer moves to another engine.
    """

    __slots__ = ("_before", "_forced", "_span", "_state", "_tail", "_used", "limit", "piece")

    def __init__(self, span: ReasoningSpan, limit: int, piece: Callable[[int], bytes]) -> None:
        self._span, self.limit, self.piece = span, limit, piece
        self._state = "inside" if span.is_open else "before"
        self._tail = b""
        self._used = 0
        self._forced: tuple[int, ...] = ()
        self._force_if_used_up()
        # What ``take_back`` restores.
        self._before = self._snapshot()

    @property
    def forced(self) -> int | None:
        """The only token that may come next; None: any may."""
        return self._forced[0] if self._forced else None

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        self._before = self._snapshot()
        if self._state == "behind":
            return
        if self._forced:
            self._forced = self._forced[1:]
            if not self._forced:
                self._state = "behind"
            return
        self._tail += self.piece(token)
        if self._state == "before":
            self._find_open()
        else:
            self._used += 1
            self._find_close()
        self._force_if_used_up()

    def give_up(self) -> None:
        """Force no token any more, because a grammar does not let it follow."""
        self._state, self._forced = "behind", ()
        self._before = self._snapshot()

    def take_back(self) -> None:
        """Undo the last ``accept``."""
        self._state, self._tail, self._used, self._forced = self._before

    def _snapshot(self) -> tuple[str, bytes, int, tuple[int, ...]]:
        return self._state, self._tail, self._used, self._forced

    def _find_open(self) -> None:
        words = self._tail = self._tail.lstrip()
        if words.startswith(self._span.open):
            self._state, self._tail = "inside", words[len(self._span.open) :]
        elif not self._span.open.startswith(words):
            self._state = "behind"

    def _find_close(self) -> None:
        if self._span.close in self._tail:
            self._state = "behind"
        else:
            # A part of the marker, or of a character.
            self._tail = self._tail[-max(len(self._span.close) - 1, 4) :]

    def _force_if_used_up(self) -> None:
        if self._state == "inside" and self._used >= self.limit and _is_whole(self._tail):
            self._forced = self._span.closing


def _is_whole(tail: bytes) -> bool:
    """Whether ``tail`` does not end within a character. Source: RFC 3629, section 3."""
    for back in range(1, min(4, len(tail)) + 1):
        byte = tail[-back]
        if byte & 0xC0 != 0x80:
            return back >= (4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1)
    return True


class BudgetedSampler:
    """Has another sampler choose, until the reasoning has used up its budget."""

    __slots__ = ("_chooser", "budget", "can_verify")

    def __init__(self, chooser: Sampler, budget: ReasoningBudget) -> None:
        self.can_verify = chooser.can_verify
        self.budget = budget
        self._chooser = chooser

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """Return the token that the budget forces, else one that the other sampler chooses."""
        if self.budget.forced is None:
            token = self._chooser.sample(context, index, logits)
            self.budget.accept(token)
        else:
            token, _ = self.draw(logits)
            self.accept(token)
        return token

    def draw(self, logits: npt.NDArray[np.float32]) -> Draw:
        """Draw the token that the budget forces, else one that the other sampler chooses."""
        forced = self._force(logits)
        chosen, probabilities = self._chooser.draw(logits)
        if forced is None or forced == chosen:
            return chosen, probabilities
        return forced, partial(certainty_of, forced, logits.size)

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        self._chooser.accept(token)
        self.budget.accept(token)

    def _force(self, logits: npt.NDArray[np.float32]) -> int | None:
        """Leave nothing to choose from but the token that the budget forces, and return that token."""
        forced = self.budget.forced
        if forced is not None and logits[forced] == -np.inf:
            self.budget.give_up()
            return None
        if forced is not None:
            # The other sampler draws all the same, so that it advances its random numbers.
            logits.fill(-np.inf)
            logits[forced] = 0
        return forced

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether the other sampler is certain; if not, the token is not counted, since it is sampled again."""
        if self._chooser.is_certain(logits, token):
            return True
        self.budget.take_back()
        return False

    def free(self) -> None:
        """Free the other sampler."""
        self._chooser.free()
