"""Which models keep only windows of their sliding layers, and how many cells these take. Pure.

llama.cpp keeps the cells of layers with a sliding window apart from those of the other layers. Where all of them are
kept, a prefix can be cut at any token. Where only windows are, checkpoints replace what is lost
(``engine.kv.checkpoints``), and the memory of a long context is a fraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# llama.cpp rounds the cells of windows up to it. Source: src/llama-kv-cache-iswa.cpp, GGML_PAD(size_swa, 256).
WINDOW_STEP: Final = 256

# Architectures whose windows are all of one length, and that see everything in each so manieth layer, the last of so
# many. Source: src/models/*.cpp, load_swa_pattern.
_PERIODS: Final[Mapping[str, int]] = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gpt-oss": 2}


def full_layer_period(architecture: str, pattern: float | None) -> int | None:
    """Return of how many layers one sees everything; None for models all of whose cells are kept.

    Args:
        architecture: of the model.
        pattern: the period in the header of its file, where it has one.
    """
    period = _PERIODS.get(architecture)
    return period if period is None or pattern is None else int(pattern)


def window_cells(window: int, *, cells: int, sequences: int, step_tokens: int) -> int:
    """Return the cells of a layer with a sliding window.

    Each sequence has its window, and a step is computed behind them; no layer has more cells than one that sees all.

    Args:
        window: in tokens.
        cells: of a layer that sees everything.
        sequences: that the context can tell apart.
        step_tokens: limit of tokens that are computed at once.

    Source: llama.cpp, src/llama-kv-cache-iswa.cpp, constructor.
    """
    return -(-min(cells, window * sequences + step_tokens) // WINDOW_STEP) * WINDOW_STEP
