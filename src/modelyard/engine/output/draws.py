"""What a sampler returns for a token that it has chosen and not counted yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Probabilities: TypeAlias = npt.NDArray[np.float64]

Draw: TypeAlias = tuple[int, Callable[[], Probabilities]]
"""A token that was chosen and is not counted yet, and a function that returns the [vocab_size] probabilities that it
was drawn with. The function must be called, if at all, before the sampler is used again."""


def certainty_of(token: int, vocab_size: int) -> Probabilities:
    """Return the [vocab_size] probabilities of a choice of which ``token`` is the only outcome."""
    probabilities = np.zeros(vocab_size)
    probabilities[token] = 1.0
    return probabilities
