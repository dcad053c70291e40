"""Applies the grammar of one answer to logits, and has the answer end within its limit of tokens.

A grammar may go on without end: digits, items of an array, the text of a string. Numbers are bounded here. All else is
bounded by the tokens that are left: a token after which these would no longer suffice to complete the answer is
replaced by the next token of a completion.

Hot path: ``prepare`` runs once a step; ``permits`` or ``apply``, and ``advance``, once a token of a constrained answer.
A mask takes 0.02 to 0.07 ms on a thread of its own, while the model decodes. Applying it takes 0.02 ms for 49,152
tokens and 0.15 ms for 262,144, of which most is done on that thread, too; it is left out where the most likely token
of all is taken, and ``permits`` finds it allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance.closing import Completion, adapted, closing
from modelyard.engine.guidance.matcher import Matcher
from modelyard.engine.guidance.vocabulary import Vocabulary, leading_digits

# [256, 8]: byte of a mask -> values to add to the logits of its eight tokens. Bit 0 is the first token.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_BIASES: npt.NDArray[np.float32] = np.where(_BITS == 1, np.float32(0), np.float32(-np.inf))

# A mask takes milliseconds at most, because llguidance limits its steps.
_MAX_MASK_S = 30.0


# Tokens before the limit from which on the answer is kept completable. A completion is rarely longer.
CLOSING_TOKENS: Final = 512

# A double has 17 significant digits, and up to 308 zeros that nobody writes out.
MAX_DIGITS: Final = 40
MAX_EXPONENT_DIGITS: Final = 2
_NUMBER_END: Final = re.compile(rb"(?:[0-9]\.?[eE][+-]?(?P<exponent>[0-9]*)|(?P<digits>[0-9]+))$")
# A tail of a number of this length decides.
_TAIL: Final = MAX_DIGITS + 2
# A grammar that lets one of these follow a digit is within text, whose digits are not limited.
_TEXT: Final = bytes(byte for byte in range(128) if chr(byte).isalpha() and byte not in b"eE")


class ConstraintBroken(Exception):
    """The answer cannot be constrained any further, most often because the grammar became too complex."""


@dataclass(frozen=True, slots=True)
class _Mask:
    """Which tokens may come next: one bit each, and, where it was asked for, what to add to the logits."""

    bits: npt.NDArray[np.uint8]
    bias: npt.NDArray[np.float32] | None


class Constraint:
    """Constrains one answer to a grammar.

    A suspended answer takes its constraint along, and its next engine adopts it. One thread at a time may use it:
    between ``prepare`` and ``permits`` or ``apply`` that is the thread of the masks.

    Args:
        vocabulary: vocabulary of the model.
        matcher: the position of the answer in its grammar.
        closes: see ``Grammar.closes``.
        dropped: the parts of the request that it does not hold, such as ``response_format.uniqueItems``.

    Attributes:
        is_asked_first: whether ``permits`` is called before ``apply``, which is then seldom needed.
        tokens_left: how many tokens the answer may still have; None: no limit.
        is_cut: whether the answer was led to its end because few tokens were left.
    """

    __slots__ = (
        "_before",
        "_closes",
        "_mask",
        "_matcher",
        "_pending",
        "_plan",
        "_search_at",
        "_tail",
        "dropped",
        "is_asked_first",
        "is_cut",
        "tokens_left",
        "vocabulary",
    )

    def __init__(
        self, vocabulary: Vocabulary, matcher: Matcher, *, closes: bool = True, dropped: tuple[str, ...] = ()
    ) -> None:
        self.vocabulary, self._matcher, self.dropped = vocabulary, matcher, dropped
        self._closes = closes
        self.tokens_left: int | None = None
        self.is_cut = False
        self.is_asked_first = False
        # The mask of the next token, while a thread computes it, and once it is computed.
        self._pending: Future[_Mask] | None = None
        self._mask: _Mask | None = None
        # The end of the answer, as far as it consists of the characters of numbers.
        self._tail = b""
        # What completes the answer, if it is known and short enough.
        self._plan: Completion | None = None
        # With so many tokens left a completion is searched for, unless one is known.
        self._search_at = CLOSING_TOKENS
        # What ``take_back`` restores.
        self._before: tuple[bytes, int | None, Completion | None, int, bool] = self._snapshot()

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow. ``accept`` must not be called then, not even with an end token."""
        return self._matcher.is_stopped

    @property
    def may_replace(self) -> bool:
        """Whether the next ``advance`` may take another token than the sampled one."""
        left = self.tokens_left
        return (
            left is not None
            and self._closes
            and left <= CLOSING_TOKENS
            and (self._plan is not None or left <= self._search_at)
        )

    def permits(self, token: int) -> bool:
        """Whether ``token`` may come next; False also where only ``apply`` can tell.

        Raises:
            ConstraintBroken: as ``apply``.
        """
        if self._tail and token in self.vocabulary.numeric:
            # The number may be too long.
            return False
        return bool(self._next_mask().bits[token >> 3] >> (token & 7) & 1)

    def apply(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of tokens that may not come next to minus infinity. logits: a row of [vocab_size].

        Raises:
            ConstraintBroken: no token may come next, or the mask takes too long.
        """
        mask = self._next_mask()
        logits += self._bias_of(mask.bits) if mask.bias is None else mask.bias

    def _next_mask(self) -> _Mask:
        """Return the mask of the next token, which is computed here unless it was prepared."""
        if self._mask is None:
            pending, self._pending = self._pending, None
            try:
                self._mask = self._compute() if pending is None else pending.result(_MAX_MASK_S)
            except TimeoutError:
                raise ConstraintBroken(f"the mask of the next token took longer than {_MAX_MASK_S:.0f} s") from None
        return self._mask

    def advance(self, token: int) -> int:
        """Advance by ``token``, which was sampled; return it, or the token that took its place to end the answer.

        Raises:
            ConstraintBroken: the grammar does not allow it.
        """
        before = self._snapshot()
        if self.tokens_left is not None:
            if self.may_replace:
                token = self._steered(token, self.tokens_left)
            self.tokens_left -= 1
        self.accept(token)
        self._before = before
        return token

    def accept(self, token: int) -> None:
        """Advance the grammar by ``token``.

        Raises:
            ConstraintBroken: the grammar does not allow it.
        """
        self._mask = self._pending = None
        if not self._matcher.consume(token):
            raise ConstraintBroken(self._matcher.error or f"token {token} may not follow")
        text = self.vocabulary.numeric.get(token)
        self._tail = b"" if text is None else (self._tail + text)[-_TAIL:]

    def take_back(self) -> None:
        """Undo the last ``advance``."""
        self._mask = self._pending = None
        self._matcher.rollback(1)
        self._tail, self.tokens_left, self._plan, self._search_at, self.is_cut = self._before

    def _snapshot(self) -> tuple[bytes, int | None, Completion | None, int, bool]:
        return self._tail, self.tokens_left, self._plan, self._search_at, self.is_cut

    def _steered(self, token: int, left: int) -> int:
        """Return ``token``, or the next token of a completion if the answer could not be completed behind it.

        Args:
            token: the sampled token.
            left: how many tokens the answer may still have, this one included.
        """
        if self._plan is None:
            self._plan = self._completion(self._matcher, left)
            if self._plan is None:
                # As within reasoning; searching seldom limits the cost.
                self._search_at = left * 3 // 4
                return token
        plan = self._plan
        if token in self.vocabulary.end_tokens:
            return token
        if plan.tokens and token == plan.tokens[0]:
            self._plan = plan.behind_first()
            return token
        if not self._matcher.allows((token,)):
            return token
        changed = adapted(plan, token, self._matcher, self.vocabulary)
        if changed is None or len(changed.tokens) >= left:
            behind = self._matcher.clone()
            changed = self._completion(behind, left - 1) if behind.consume(token) else None
        if changed is not None:
            self._plan = changed
            return token
        end = plan.tokens[0] if plan.tokens else min(self.vocabulary.end_tokens)
        if end >= self.vocabulary.size:
            # The answer may end here, but the model has no token for that; see ``Vocabulary.end_tokens``.
            return token
        self.is_cut = True
        self._plan = plan.behind_first()
        return end

    def _completion(self, position: Matcher, left: int) -> Completion | None:
        """Return a completion from ``position`` of at most ``left`` tokens, if one is found."""
        plan = closing(position, self.vocabulary)
        return plan if plan is not None and len(plan.tokens) <= left else None

    def _compute(self) -> _Mask:
        bits = self._matcher.compute_mask()
        if bits is None:
            raise ConstraintBroken(self._matcher.error)
        return _Mask(bits, None if self.is_asked_first else self._bias_of(bits))

    def _bias_of(self, bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return what to add to the logits of each token."""
        # ``take`` needs a tenth of the time of indexing.
        bias = _BIASES.take(bits, axis=0).reshape(-1)[: self.vocabulary.size]
        if not bits.any() or bias.max() < 0:
            raise ConstraintBroken("no token of the vocabulary can follow")
        return self._without_long_numbers(bias) if self._tail else bias

    def _without_long_numbers(self, bias: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``bias`` without the tokens that would make a number too long, if others can follow."""
        number = _NUMBER_END.search(self._tail)
        if number is None:
            return bias
        exponent = number["exponent"]
        room = MAX_DIGITS - len(number["digits"]) if exponent is None else MAX_EXPONENT_DIGITS - len(exponent)
        if room >= self.vocabulary.max_digits:
            return bias
        letters = self.vocabulary.byte_tokens[list(_TEXT)]
        if any(token >= 0 and bias[token] == 0 for token in letters):
            return bias
        banned = [token for token, text in self.vocabulary.numeric.items() if leading_digits(text) > room]
        bounded = bias.copy()
        bounded[banned] = -np.inf
        return bounded if bounded.max() == 0 else bias


def prepare(constraints: Iterable[Constraint], masks: Executor) -> None:
    """Start to compute the next masks of ``constraints`` on ``masks``, one after the other."""
    waiting: list[tuple[Constraint, Future[_Mask]]] = []
    for constraint in constraints:
        if constraint._pending is None and constraint._mask is None:
            constraint._pending = Future()
            waiting.append((constraint, constraint._pending))
    if waiting:
        masks.submit(_compute_all, waiting)


def _compute_all(waiting: Sequence[tuple[Constraint, Future[_Mask]]]) -> None:
    for constraint, pending in waiting:
        try:
            pending.set_result(constraint._compute())
        except Exception as failure:  # noqa: BLE001 - raised where the mask is applied
            pending.set_exception(failure)
