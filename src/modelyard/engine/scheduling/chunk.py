"""The part of one sequence in a step."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.kv.sequence import Sequence


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """Tokens of one sequence in the batch, the first of them at ``position``.

    Logits are computed for the last ``outputs`` of them. Where ``outputs`` is more than one, all tokens but the first
    are draft tokens, which the sequence does not hold yet, or all are tokens of a prompt that is scored. ``image`` is
    the image that all the tokens are placeholders of; such a chunk is the only one of its step.
    """

    sequence: Sequence
    position: int
    tokens: list[int]
    outputs: int
    image: ImageSpan | None = None
