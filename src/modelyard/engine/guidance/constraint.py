"""Applies the grammar of one answer to logits, and has the answer end within its limit of tokens.

A grammar may go on without end: digits, items of an array, the text of a string. Numbers are bounded here. All else is
bounded by the tokens that are left: a token after which these would no longer suffice to complete the answer is
replaced by the next token of a completion.

Hot path: ``prepare``, ``apply`` and ``accept`` run once a token of a constrained answer. A mask takes 0.07 ms on a
thread of its own, while the model decodes; applying it takes 0.02 ms for 49,152 tokens.
"""

from __future__ import annotations

import re
from concurrent.futures import Executor, Future
from typing import Final

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance.closing import closing, completes
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
_CLOSERS: Final = b'"}]'


class ConstraintBroken(Exception):
    """The answer cannot be constrained any further, most often because the grammar became too complex."""


class Constraint:
    """Constrains one answer to a grammar.

    A suspended answer takes its constraint along, and its next engine adopts it. One thread at a time may use it:
    between ``prepare`` and ``apply`` that is the thread of the masks.

    Args:
        vocabulary: vocabulary of the model.
        matcher: the position of the answer in its grammar.
        closes: see ``Grammar.closes``.
        dropped: the parts of the request that it does not hold, such as ``response_format.uniqueItems``.

    Attributes:
        tokens_left: how many tokens the answer may still have; None: no limit.
        is_cut: whether the answer was led to its end because few tokens were left.
    """

    __slots__ = (
        "_before",
        "_bias",
        "_closes",
        "_matcher",
        "_plan",
        "_search_at",
        "_tail",
        "dropped",
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
        self._bias: Future[npt.NDArray[np.float32]] | None = None
        # The end of the answer, as far as it consists of the characters of numbers.
        self._tail = b""
        # Tokens that complete the answer, if they are known and few enough.
        self._plan: tuple[int, ...] | None = None
        # With so many tokens left a completion is searched for, unless one is known.
        self._search_at = CLOSING_TOKENS
        # What ``take_back`` restores.
        self._before: tuple[bytes, int | None, tuple[int, ...] | None, int, bool] = self._snapshot()

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

    def prepare(self, masks: Executor) -> None:
        """Start to compute the next mask on ``masks``."""
        if self._bias is None:
            self._bias = masks.submit(self._compute)

    def apply(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of tokens that may not come next to minus infinity. logits: a row of [vocab_size].

        Raises:
            ConstraintBroken: no token may come next, or the mask takes too long.
        """
        pending, self._bias = self._bias, None
        try:
            logits += self._compute() if pending is None else pending.result(_MAX_MASK_S)
        except TimeoutError:
            raise ConstraintBroken(f"the mask of the next token took longer than {_MAX_MASK_S:.0f} s") from None

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
        self._bias = None
        if not self._matcher.consume(token):
            raise ConstraintBroken(self._matcher.error or f"token {token} may not follow")
        text = self.vocabulary.numeric.get(token)
        self._tail = b"" if text is None else (self._tail + text)[-_TAIL:]

    def take_back(self) -> None:
        """Undo the last ``advance``."""
        self._bias = None
        self._matcher.rollback(1)
        self._tail, self.tokens_left, self._plan, self._search_at, self.is_cut = self._before

    def _snapshot(self) -> tuple[bytes, int | None, tuple[int, ...] | None, int, bool]:
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
        if plan and token == plan[0]:
            self._plan = plan[1:]
            return token
        behind = self._matcher.clone()
        if not behind.consume(token):
            return token
        # Most tokens leave the completion as it is, or open what one token closes: these are tried before a search.
        closers = self.vocabulary.byte_tokens[list(_CLOSERS)].tolist()
        for changed in (plan, *((closer, *plan) for closer in closers), plan[1:]):
            if len(changed) < left and completes(behind, changed):
                self._plan = changed
                return token
        if (other := self._completion(behind, left - 1)) is not None:
            self._plan = other
            return token
        end = plan[0] if plan else min(self.vocabulary.end_tokens)
        if end >= self.vocabulary.size:
            # The answer may end here, but the model has no token for that; see ``Vocabulary.end_tokens``.
            return token
        self.is_cut = True
        self._plan = plan[1:]
        return end

    def _completion(self, position: Matcher, left: int) -> tuple[int, ...] | None:
        """Return a completion from ``position`` of at most ``left`` tokens, if one is found."""
        plan = closing(position, self.vocabulary)
        return plan if plan is not None and len(plan) <= left else None

    def _compute(self) -> npt.NDArray[np.float32]:
        mask = self._matcher.compute_mask()
        if mask is None:
            raise ConstraintBroken(self._matcher.error)
        # ``take`` needs a tenth of the time of indexing.
        bias = _BIASES.take(mask, axis=0).reshape(-1)[: self.vocabulary.size]
        if not mask.any() or bias.max() < 0:
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
