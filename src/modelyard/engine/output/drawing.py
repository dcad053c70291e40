"""Draws tokens, by temperature and from the most likely ones."""

from __future__ import annotations

import os
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama import Context, SamplerChain, active_samplers
from modelyard.engine.output.adjustments import Adjustments
from modelyard.engine.output.draws import Draw, Probabilities
from modelyard.engine.output.narrowing import Candidates, Narrowing, drawn, drawn_of_all, narrowed
from modelyard.protocol.prompts import SamplerName, Sampling

# The samplers that need no chain of llama.cpp, in their order.
_PLAIN: Final[tuple[SamplerName, ...]] = ("top_k", "top_p", "min_p", "temperature")

# A random double has 53 bits.
_RANDOM_BYTES: Final = 7
_RANDOM_BITS: Final = 53


class DrawingSampler:
    """Draws from the tokens that top-k, top-p and min-p leave.

    Args:
        narrowing: which these are.
        adjustments: bias and penalties.
        chain: llama.cpp's samplers for the same narrowing, where the request has a seed. Their random numbers are used
            then, and their result where ``narrowed`` cannot tell it.
    """

    __slots__ = ("_adjustments", "_chain", "_narrowing", "can_verify")

    def __init__(self, narrowing: Narrowing, adjustments: Adjustments, chain: SamplerChain | None = None) -> None:
        self.can_verify = chain is None
        self._narrowing, self._adjustments, self._chain = narrowing, adjustments, chain

    def sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        """Draw a token, and count it."""
        self._adjustments.apply(logits)
        if self._chain is None and self._narrowing.leaves_all:
            token = drawn_of_all(logits, self._narrowing.temperature, _random)
        else:
            candidates = narrowed(logits, self._narrowing, is_exact=self._chain is not None)
            # llama.cpp reads the same memory.
            token = self._chain_sample(context, index, logits) if candidates is None else self._draw_from(candidates)
        self._adjustments.accept(token)
        return token

    def draw(self, logits: npt.NDArray[np.float32]) -> Draw:
        """Draw a token, but do not count it."""
        self._adjustments.apply(logits)
        if self._chain is None and self._narrowing.leaves_all:
            temperature = self._narrowing.temperature
            return drawn_of_all(logits, temperature, _random), partial(_probabilities, logits, temperature)
        candidates = narrowed(logits, self._narrowing, is_exact=self._chain is not None)
        if candidates is None:
            assert self._chain is not None
            return self._chain.draw(logits)
        return self._draw_from(candidates), partial(candidates.probabilities, logits.size)

    def _chain_sample(self, context: Context, index: int, logits: npt.NDArray[np.float32]) -> int:
        assert self._chain is not None
        return self._chain.sample(context, index, logits)

    def _draw_from(self, candidates: Candidates) -> int:
        if self._chain is None:
            return drawn(candidates, _random())
        assert candidates.ids is not None
        return self._chain.draw_among(candidates.ids, candidates.logits, is_sorted=candidates.is_sorted)

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        self._adjustments.accept(token)

    def is_certain(self, _logits: npt.NDArray[np.float32], _token: int) -> bool:
        """Return True: a draw from slightly different logits is as good."""
        return True

    def free(self) -> None:
        """Free the chain now."""
        if self._chain is not None:
            self._chain.free()


def narrowing_of(sampling: Sampling) -> Narrowing | None:
    """Return how a request narrows the distribution; None where that takes other samplers, or another order of them.

    Penalties come first, or not at all.
    """
    if sampling.mirostat:
        return None
    active = active_samplers(sampling)
    if active[:1] == ("penalties",):
        active = active[1:]
    if active != tuple(name for name in _PLAIN if name in active) or sampling.dynatemp_range:
        return None
    return Narrowing(
        top_k=(sampling.top_k or 0) if "top_k" in active else 0,
        top_p=sampling.top_p if "top_p" in active and sampling.top_p is not None else 1.0,
        min_p=(sampling.min_p or 0.0) if "min_p" in active else 0.0,
        temperature=sampling.temperature if "temperature" in active and sampling.temperature is not None else 1.0,
    )


def _probabilities(logits: npt.NDArray[np.float32], temperature: float) -> Probabilities:
    return Candidates(None, logits / np.float32(temperature), is_sorted=False).probabilities(logits.size)


def _random() -> float:
    """Return a random number from 0 to below 1. Processes of engines are forks, which would share a generator."""
    bits = int.from_bytes(os.urandom(_RANDOM_BYTES), "little") >> (8 * _RANDOM_BYTES - _RANDOM_BITS)
    return bits * 2.0**-_RANDOM_BITS
