"""Lengths of the inputs of an embedding model, and of the steps that compute them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.engine.settings import DEFAULT_CONTEXT

# Limit of an input if none is configured and inputs are computed whole: memory grows with the length times the
# vocabulary, since llama.cpp reserves memory for logits even where none are computed.
DEFAULT_WHOLE_INPUT: Final = 2048

# Limit of tokens of a part, where inputs are computed in parts: their logits are computed too, and discarded.
PART_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class EmbeddingShape:
    """Sizes of a context for embeddings, in tokens.

    Attributes:
        longest: limit of one input.
        step_tokens: limit of one call of llama.cpp.
    """

    longest: int
    step_tokens: int


def embedding_shape(trained: int, configured: int | None, batch_tokens: int, *, is_whole: bool) -> EmbeddingShape:
    """Return the sizes that a model is served with.

    Args:
        trained: context that the model was trained with: a longer input has no positions.
        configured: configured context in tokens, if any.
        batch_tokens: limit of tokens that inputs are packed into.
        is_whole: whether all of an input must be computed at once, since each of its tokens sees those behind it, or
            the pooling needs all of them.
    """
    longest = min(configured or (DEFAULT_WHOLE_INPUT if is_whole else DEFAULT_CONTEXT), trained)
    return EmbeddingShape(longest, max(longest, batch_tokens) if is_whole else min(batch_tokens, PART_TOKENS))
