"""Leaves a sampler only the tokens that a request allows, without those that would complete a sequence it excludes.

Source: vLLM, ``SamplingParams.allowed_token_ids`` and ``SamplingParams.bad_words``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance import ConstraintBroken
from modelyard.engine.llama import Context
from modelyard.engine.output.draws import Draw
from modelyard.engine.output.sampler import Sampler


class RestrictedSampler:
    """Has another sampler choose among the tokens that a request allows.

    Args:
        chooser: the other sampler.
        vocab_size: number of token ids.
        allowed: the only tokens that may be chosen; None: all.
        excluded: sequences of tokens that the answer must not have, none of them empty.
        answer: tokens of the answer so far.
    """

    __slots__ = ("_before", "_bias", "_chooser", "_excluded", "_tail", "_tail_length", "can_verify")

    def __init__(
        self,
        chooser: Sampler,
        vocab_size: int,
        allowed: Sequence[int] | None,
        excluded: Sequence[tuple[int, ...]] = (),
        answer: Sequence[int] = (),
    ) -> None:
        self.can_verify = chooser.can_verify
        self._chooser = chooser
        # Added to the logits: that takes a fifth of the time of a mask.
        self._bias: npt.NDArray[np.float32] | None = None
        if allowed is not None:
            self._bias = np.full(vocab_size, -np.inf, np.float32)
            self._bias[list(allowed)] = 0
        self._excluded = [(sequence[:-1], sequence[-1]) for sequence in excluded]
        self._tail_length = max((len(beginning) for beginning, _ in self._excluded), default=0)
        self._tail: tuple[int, ...] = ()
        for token in answer[max(0, len(answer) - self._tail_length) :]:
            self._count(token)
        # What an uncertain token restores.
        self._before: tuple[int, ...] = self._tail

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """Return a token that the request allows.

        Raises:
            ConstraintBroken: no token that may come next is allowed.
        """
        self._restrict(logits)
        token = self._chooser.sample(context, index, logits)
        self._count(token)
        return token

    def draw(self, logits: npt.NDArray[np.float32]) -> Draw:
        """Draw a token that the request allows.

        Raises:
            ConstraintBroken: no token that may come next is allowed.
        """
        self._restrict(logits)
        return self._chooser.draw(logits)

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        self._chooser.accept(token)
        self._count(token)

    def _restrict(self, logits: npt.NDArray[np.float32]) -> None:
        if self._bias is not None:
            logits += self._bias
        for beginning, last in self._excluded:
            if not beginning or self._tail[-len(beginning) :] == beginning:
                logits[last] = -np.inf
        if logits.max() == -np.inf:
            raise ConstraintBroken("no token that may follow is among those that the request allows")

    def _count(self, token: int) -> None:
        self._before = self._tail
        if self._tail_length:
            self._tail = (*self._tail, token)[-self._tail_length :]

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether the other sampler is certain; if not, the token is not counted, since it is sampled again."""
        if self._chooser.is_certain(logits, token):
            return True
        self._tail = self._before
        return False

    def free(self) -> None:
        """Free the other sampler."""
        self._chooser.free()
