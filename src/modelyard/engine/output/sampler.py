"""Samplers: they choose the tokens of a sequence from logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance import Constraint
from modelyard.engine.llama import Context, DrySampler, Model, SamplerChain, is_greedy
from modelyard.engine.output.adjustments import Adjustments, penalties_of
from modelyard.engine.output.drawing import DrawingSampler, narrowing_of
from modelyard.engine.output.draws import Draw, certainty_of
from modelyard.protocol.prompts import Sampling

# Limit of how much the lead of one token over another changes when other tokens are computed in the same step
# (docs/performance.md).
NOISE = 0.6

_BAN = -1e9


class Sampler(Protocol):
    """Samples the tokens of one sequence, and keeps the state that this needs.

    It holds nothing of weights or context: it may leave its engine with a suspended sequence. Its state follows from
    the tokens of the answer, which need not be those that it chose: a budget or a grammar may put others in their
    place.
    """

    can_verify: bool
    """Whether it may sample from logits that were computed together with those of draft tokens.

    These differ slightly from the logits of a step without drafts: a repeatable draw must not depend on them.
    """

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """Choose the token after the batch's token at ``index``, whose logits are a row of [vocab_size], and count it.

        The row may be changed, and is sampled from once.
        """

    def draw(self, logits: npt.NDArray[np.float32]) -> Draw:
        """Choose the token as ``sample`` does, but do not count it. ``accept`` must follow."""

    def accept(self, token: int) -> None:
        """Count ``token``, which takes the place of the one that was drawn, or is that one."""

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether ``token``, just sampled from ``logits``, would also be sampled in a step without drafts."""

    def free(self) -> None:
        """Free its memory now, rather than with its last reference."""


class GreedySampler:
    """Takes the most likely token, of equal ones the first.

    A sampler chain copies all candidates to do that: 0.15 ms for 49,152 tokens, where this takes 0.01 ms.

    Args:
        adjustments: bias and penalties.
        can_verify: see ``Sampler``. With penalties it must not: a token that is not certain could not be taken back.
    """

    __slots__ = ("adjustments", "can_verify")

    def __init__(self, adjustments: Adjustments, *, can_verify: bool = True) -> None:
        self.adjustments, self.can_verify = adjustments, can_verify

    def sample(self, _context: Context, _index: int, logits: npt.NDArray[np.float32]) -> int:
        """Return the token with the highest logit, and count it."""
        self.adjustments.apply(logits)
        token = int(logits.argmax())
        self.adjustments.accept(token)
        return token

    def draw(self, logits: npt.NDArray[np.float32]) -> Draw:
        """Return the token with the highest logit, whose probability is 1."""
        self.adjustments.apply(logits)
        token = int(logits.argmax())
        return token, partial(certainty_of, token, logits.size)

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        self.adjustments.accept(token)

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether the token leads all others by more than NOISE."""
        best = logits[token]
        logits[token] = -np.inf
        return bool(best - logits.max() > NOISE)

    def free(self) -> None:
        """Do nothing: there is nothing to free."""


class PatientSampler:
    """Has another sampler choose among the tokens that do not end the answer, until it is long enough.

    Args:
        chooser: the other sampler.
        ends: ids of the tokens that end the answer.
        wait: tokens to sample before one of them may be.
    """

    __slots__ = ("_chooser", "_ends", "_wait", "can_verify")

    def __init__(self, chooser: Sampler, ends: Collection[int], wait: int) -> None:
        self.can_verify = chooser.can_verify
        self._chooser = chooser
        self._ends = np.fromiter(ends, np.intp, len(ends))
        self._wait = wait

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """Return a token that does not end the answer, while it must not end."""
        self._ban_ends(logits)
        token = self._chooser.sample(context, index, logits)
        self._wait -= 1
        return token

    def draw(self, logits: npt.NDArray[np.float32]) -> Draw:
        """Draw a token that does not end the answer, while it must not end."""
        self._ban_ends(logits)
        return self._chooser.draw(logits)

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        self._chooser.accept(token)
        self._wait -= 1

    def _ban_ends(self, logits: npt.NDArray[np.float32]) -> None:
        if self._wait > 0:
            logits[self._ends] = _BAN

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether the other sampler is certain; if not, the token is sampled again, and counts once."""
        is_certain = self._chooser.is_certain(logits, token)
        self._wait += not is_certain
        return is_certain

    def free(self) -> None:
        """Free the other sampler."""
        self._chooser.free()


class ConstrainedSampler:
    """Has another sampler choose among the tokens that a grammar allows.

    The most likely token of all is the most likely allowed one, if it is allowed: a greedy sampler looks at the others
    only if it is not.
    """

    __slots__ = ("_chooser", "_greedy", "can_verify", "constraint")

    def __init__(self, chooser: Sampler, constraint: Constraint) -> None:
        self.can_verify = chooser.can_verify
        self.constraint = constraint
        self._chooser = chooser
        self._greedy = chooser if isinstance(chooser, GreedySampler) else None
        constraint.is_asked_first = self._greedy is not None

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """Return a token that the grammar allows next, and behind which the answer can end within its limit.

        Raises:
            ConstraintBroken: the grammar allows none.
        """
        if self._greedy is not None:
            self._greedy.adjustments.apply(logits)
            token = int(logits.argmax())
            if not self.constraint.permits(token):
                self.constraint.apply(logits)
                token = int(logits.argmax())
            token = self.constraint.advance(token)
            self._greedy.accept(token)
            return token
        if self.constraint.may_replace:
            token, _ = self.draw(logits)
            self.accept(token)
            return token
        # llama.cpp's own samplers read the same memory.
        self.constraint.apply(logits)
        return self.constraint.advance(self._chooser.sample(context, index, logits))

    def draw(self, logits: npt.NDArray[np.float32]) -> Draw:
        """Draw a token that the grammar allows next, or take the next one of a completion; the grammar counts it.

        Raises:
            ConstraintBroken: the grammar allows none.
        """
        self.constraint.apply(logits)
        chosen, probabilities = self._chooser.draw(logits)
        token = self.constraint.advance(chosen)
        # A completion that takes the place of what was drawn is not drawn itself.
        return token, probabilities if token == chosen else partial(certainty_of, token, logits.size)

    def accept(self, token: int) -> None:
        """Have the other sampler count the token, which the grammar has counted."""
        self._chooser.accept(token)

    def is_certain(self, logits: npt.NDArray[np.float32], token: int) -> bool:
        """Whether the other sampler is certain; if not, the grammar takes the token back, since it is sampled again."""
        if self._chooser.is_certain(logits, token):
            return True
        self.constraint.take_back()
        return False

    def free(self) -> None:
        """Free the other sampler."""
        self._chooser.free()


def make_sampler(
    sampling: Sampling,
    model: Model,
    context: int,
    prompt: Sequence[int],
    *,
    ban_end: bool,
    end_tokens: Collection[int] = (),
    min_tokens: int = 0,
    dry: DrySampler | None = None,
    answer: Sequence[int] = (),
) -> Sampler:
    """Return the sampler of one sequence.

    Args:
        sampling: parameters, all set.
        model: the model whose tokens are sampled.
        context: length of the context, which penalties cover.
        prompt: tokens that the repetition penalty counts.
        ban_end: whether tokens that end the answer are never sampled.
        end_tokens, min_tokens: none of these tokens is sampled before the answer has so many tokens.
        dry: DRY sampler against repetitions, where it is asked for.
        answer: tokens that another sampler with these parameters has sampled: this one continues behind them.
    """
    bias = dict(sampling.logit_bias or {})
    if ban_end:
        bias |= dict.fromkeys(model.end_tokens, _BAN)
    sampler = _choosing(sampling, bias, model, context, prompt, dry, answer)
    wait = min_tokens - len(answer)
    return PatientSampler(sampler, end_tokens, wait) if wait > 0 else sampler


def _choosing(
    sampling: Sampling,
    bias: Mapping[int, float],
    model: Model,
    context: int,
    prompt: Sequence[int],
    dry: DrySampler | None,
    answer: Sequence[int],
) -> Sampler:
    """Return the sampler that chooses; see ``make_sampler``."""
    if is_greedy(sampling) and dry is None:
        penalties = penalties_of(sampling, context, prompt, answer)
        return GreedySampler(Adjustments(bias, penalties), can_verify=not penalties)
    narrowing = None if is_greedy(sampling) or dry is not None else narrowing_of(sampling)
    if narrowing is None:
        return SamplerChain(sampling, bias, model, context, prompt, dry, answer)
    adjustments = Adjustments(bias, penalties_of(sampling, context, prompt, answer))
    if sampling.seed is None:
        return DrawingSampler(narrowing, adjustments)
    plain = replace(sampling, repetition_penalty=None, frequency_penalty=None, presence_penalty=None)
    return DrawingSampler(narrowing, adjustments, SamplerChain(plain, {}, model, context, (), None, answer))
