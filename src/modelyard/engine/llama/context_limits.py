"""The limits of a context that llama.cpp asserts on, met by construction for any configuration.

A failed assertion ends the process, and with it every model. The other requirements on a configuration, and their
error messages, are in ``config.rules``.

Source: llama.cpp, src/llama-context.cpp: the constructor, output_reserve, encode and decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Source: GGML_PAD(cparams.n_ctx, 256).
CELLS_STEP: Final = 256


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Sizes of a context that fit one another.

    Attributes:
        cells: n_ctx, KV cells in tokens.
        batch: n_batch, limit of tokens in one call. llama.cpp also uses it as the limit of rows of logits.
        step: n_ubatch, limit of tokens that are computed at once.
    """

    cells: int
    batch: int
    step: int


def context_limits(length: int, slots: int, batch_tokens: int, step_tokens: int | None = None) -> ContextLimits:
    """Return the sizes to request from llama.cpp.

    - ``n_outputs_max <= cparams.n_outputs_max`` (output_reserve): the context makes room for one row of logits for each
      slot, and allows as many rows as ``n_batch``, which it first cuts to the ``n_ctx`` that was asked for, before it
      rounds that up. So neither may be below the number of slots.
    - ``n_tokens_all <= cparams.n_batch`` (decode), ``cparams.n_ubatch >= n_tokens`` (encode, and decode without causal
      attention): a step of ``batch_tokens`` fits. With causal attention both are cut to ``n_ctx``, beyond which a step
      would find no free cells.

    Args:
        length: KV cells that are needed, in tokens.
        slots: sequences that the context can tell apart.
        batch_tokens: limit of tokens in one step.
        step_tokens: limit of those that are computed at once; None: all.
    """
    cells = -(-max(length, slots) // CELLS_STEP) * CELLS_STEP
    return ContextLimits(cells, max(batch_tokens, slots), step_tokens or batch_tokens)
