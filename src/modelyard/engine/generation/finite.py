"""Finds the most likely tokens of a step, and logits that are not finite: of damaged weights, or an overflow."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

NOT_FINITE: Final = (
    "its logits are not finite (NaN or infinite). Its weights are damaged, or overflow in the precision that they are "
    'computed in: use another file of the model, and kv_type "f16"'
)


def peaks(logits: npt.NDArray[np.float32]) -> list[int | None]:
    """Return the most likely token of each row of logits, [rows, vocab_size]; None where no token can be chosen.

    Some models mask tokens with minus infinity; a row of nothing else is as unusable as one with NaN or infinity.
    """
    # One pass, 3 us for 49,152 tokens: of numbers with a NaN among them, it is the first NaN.
    tokens = logits.argmax(axis=1)
    highest = logits[np.arange(len(tokens)), tokens].tolist()
    return [token if math.isfinite(value) else None for token, value in zip(tokens.tolist(), highest, strict=True)]
