"""How many tokens of prompts a step takes, so that running streams do not wait long for it. Pure."""

from __future__ import annotations

import math

from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.step_cost import StepCost

# A step with a long prompt may take this multiple of the time of its decoding alone: running streams wait for it, and
# the longest gap in them must stay below three times the usual one.
MAX_STRETCH = 2.5

# A step always has room for this many tokens: llama.cpp's kernels take four at a time.
MIN_STEP = 4

# Without running streams, a prompt is computed in parts of 64, 128, 256 or 512 tokens, as many as fit in this time:
# cancellations and new requests wait for the end of a step.
MAX_STEP_S = 0.5


class StepBudget:
    """The part of one step that prompts may take.

    Args:
        cost: estimates of the time that steps take.
        decoding: number of sequences that decode in the step.
        batch_tokens: limit of tokens in a step.
        prefill_beside_decode: limit of prompt tokens in a step that also decodes.
        scored: limit of tokens of scored prompts, each of which needs logits.
    """

    def __init__(
        self, cost: StepCost, decoding: int, *, batch_tokens: int, prefill_beside_decode: int, scored: int
    ) -> None:
        self.prompt_tokens = 0
        self._cost = cost
        self._decoding = decoding
        self._short = prefill_beside_decode
        self._limit = min(batch_tokens - decoding, prefill_beside_decode if decoding else batch_tokens)
        self._scored = scored

    @property
    def budget(self) -> int:
        """Prompt tokens that the step still has room for."""
        return self._limit - self.prompt_tokens

    def chunk_length(self, sequence: Sequence) -> int:
        """Return how many pending tokens to compute at once: never the last of a prompt together with those before it.

        llama.cpp's arithmetic depends on the number of tokens in a batch. Computed by itself, the last token gives the
        same logits whether the tokens before it were just computed or found in the cache: equal requests get equal
        answers.
        """
        wanted = sequence.text_within(min(max(sequence.pending - 1, 1), self.budget))
        if sequence.checkpoints_at:
            wanted = min(
                wanted, next((at - sequence.fed for at in sequence.checkpoints_at if at > sequence.fed), wanted)
            )
        if sequence.scores_prompt:
            wanted = min(wanted, self._scored)
            self._scored = max(1, self._scored - wanted)
        beside = self._decoding + self.prompt_tokens
        if self._decoding and sequence.to_prefill > self._short:
            allowed = self._cost.max_tokens(beside, MAX_STRETCH * self._cost.seconds(self._decoding), wanted)
            return allowed if self.prompt_tokens else min(max(allowed, MIN_STEP - beside, 1), wanted)
        largest = self._short
        # The first step of an engine is small: it may take long, and gives the first estimate.
        while largest < wanted and (self._cost.seconds(beside + 2 * largest) or math.inf) <= MAX_STEP_S:
            largest *= 2
        return min(wanted, largest)
