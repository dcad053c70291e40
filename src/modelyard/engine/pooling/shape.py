"""How long the inputs of an embedding model may be, and how many tokens are computed at once. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.engine.settings import DEFAULT_CONTEXT

# Longest input where nothing is configured and inputs are computed whole: memory grows with the length times the
# vocabulary, for which llama.cpp makes room whether or not there are logits.
DEFAULT_WHOLE_INPUT: Final = 2048

# Most tokens of a part, where inputs are computed in parts: their logits are computed too, and thrown away.
PART_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class EmbeddingShape:
    """Sizes of a context for embeddings, in tokens.

    Attributes:
        longest: of one input.
        step_tokens: most in one call of llama.cpp.
    """

    longest: int
    step_tokens: int


def embedding_shape(trained: int, configured: int | None, batch_tokens: int, *, is_whole: bool) -> EmbeddingShape:
    """The sizes that a model is served with.

    Args:
        trained: tokens that the model was trained for: a longer input has no positions.
        configured: tokens of context, where they are.
        batch_tokens: that inputs are packed into.
        is_whole: whether all of an input must be computed at once, since each of its tokens sees those behind it, or
            the pooling counts all of them.
    """
    longest = min(configured or (DEFAULT_WHOLE_INPUT if is_whole else DEFAULT_CONTEXT), trained)
    return EmbeddingShape(longest, max(longest, batch_tokens) if is_whole else min(batch_tokens, PART_TOKENS))
