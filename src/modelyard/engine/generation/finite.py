"""Finds logits that are not finite: the weights are damaged, or overflow in 16 bits."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

NOT_FINITE: Final = (
    "its logits are not finite (NaN or infinite). Its weights are damaged, or overflow in the precision that they are "
    'computed in: use another file of the model, and kv_type "f16"'
)


def is_usable(logits: npt.NDArray[np.float32]) -> bool:
    """Whether a token can be chosen from a row of logits, [vocab_size].

    Some models mask tokens with minus infinity; a row of nothing else is as unusable as one with NaN or infinity.
    """
    # One pass, 5 us for 49,152 tokens: the maximum of numbers with a NaN among them is NaN.
    return math.isfinite(logits.max())
