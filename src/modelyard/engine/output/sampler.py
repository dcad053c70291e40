"""How a sequence chooses its tokens from logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance import Constraint
from modelyard.engine.llama import Context, DrySampler, Model, SamplerChain, is_greedy
from modelyard.protocol.prompts import Sampling

# The lead of one token over another differs by so much, at the most, when it is computed together with other tokens
# (docs/performance.md).
NOISE = 0.6

_BAN = -1e9


class Sampler(Protocol):
    """Chooses the tokens of one sequence, one after the other, and remembers what it needs of them.

    It holds nothing of weights or context: it may leave its engine with a suspended sequence. What it remembers follows
    from the tokens that it has drawn.
    """

    can_verify: bool
    """Whether it may be given logits that were computed together with those of guessed tokens.

    They differ slightly from those of a token by itself: a draw that is to be repeatable must not depend on them.
    """

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """The token to follow the batch's token at ``index``, whose logits are a row of [vocab_size]. They are used up:
        a row may be changed, and is sampled from once."""

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether ``token``, just sampled from ``logits``, would also be chosen from those of a step by itself."""

    def free(self) -> None:
        """Free what it holds now, rather than with its last reference."""


class GreedySampler:
    """Takes the likeliest token, of equal ones the first.

    A sampler chain copies all candidates to do that: 0.15 ms for 49,152 tokens, where this takes 0.01.
    """

    __slots__ = ("_ids", "_values", "can_verify")

    def __init__(self, bias: Mapping[int, float]) -> None:
        self.can_verify = True
        self._ids = np.fromiter(bias.keys(), np.intp, len(bias))
        self._values = np.fromiter(bias.values(), np.float32, len(bias))

    def sample(self, _context: Context, _index: int, logits: npt.NDArray[np.float32]) -> int:
        """The token of the highest logit."""
        if self._ids.size:
            logits[self._ids] += self._values
        return int(logits.argmax())

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether no other token comes near."""
        best = logits[token]
        logits[token] = -np.inf
        return bool(best - logits.max() > NOISE)

    def free(self) -> None:
        """There is nothing to free."""


class ConstrainedSampler:
    """Lets another sampler choose among the tokens that a grammar allows."""

    __slots__ = ("_chooser", "can_verify", "constraint")

    def __init__(self, chooser: Sampler, constraint: Constraint) -> None:
        self.can_verify = chooser.can_verify
        self.constraint = constraint
        self._chooser = chooser

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """A token that may come next.

        Raises:
            ConstraintBroken: there is none.
        """
        # llama.cpp's own samplers read the same memory.
        self.constraint.apply(logits)
        token = self._chooser.sample(context, index, logits)
        self.constraint.accept(token)
        return token

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """As the other sampler says; a token that is not will be sampled again."""
        if self._chooser.is_certain(logits, token):
            return True
        self.constraint.take_back()
        return False

    def free(self) -> None:
        """Free what the other sampler holds."""
        self._chooser.free()


def make_sampler(
    sampling: Sampling,
    model: Model,
    context: int,
    prompt: Sequence[int],
    *,
    ban_end: bool,
    dry: DrySampler | None = None,
    answer: Sequence[int] = (),
) -> Sampler:
    """The sampler of one sequence.

    Args:
        sampling: with nothing left unsaid.
        model: whose tokens are drawn.
        context: length of the context: as far as penalties look back.
        prompt: which the repetition penalty counts.
        ban_end: never choose a token that ends the answer.
        dry: what keeps the answer from repetitions, where it is asked for.
        answer: tokens that another sampler of this kind has drawn: it goes on behind them.
    """
    bias = dict(sampling.logit_bias or {})
    if ban_end:
        bias |= dict.fromkeys(model.end_tokens, _BAN)
    penalties = sampling.frequency_penalty, sampling.presence_penalty, (sampling.repetition_penalty or 1.0) - 1.0
    if is_greedy(sampling) and not any(penalties) and dry is None:
        return GreedySampler(bias)
    return SamplerChain(sampling, bias, model, context, prompt, dry, answer)
