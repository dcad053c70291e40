"""The tokens of one request, and how far they are computed."""

from __future__ import annotations

import collections.abc
from bisect import insort
from typing import Protocol

from modelyard.engine.kv.adapter_set import NO_ADAPTERS, AdapterSet, adapter_salt
from modelyard.engine.kv.cache import Slot
from modelyard.engine.kv.checkpoints import MIN_CHECKPOINT_DISTANCE
from modelyard.engine.kv.placeholders import ImageSpan, ImageSpans, text_run
from modelyard.protocol.values import SequenceId, Usage


class Sequence:
    """A prompt and the answer so far.

    Attributes:
        id: number of the sequence, unique in the yard.
        arrival: place in the order of arrival in this engine; the highest is preempted first.
        priority: sequences of a higher priority go first in the queue.
        tokens: the prompt, then the answer.
        prompt_length: tokens of the prompt.
        slot: place in the KV cache while the sequence runs; None while it waits.
        cached_tokens: tokens of the prompt that were found in the cache when the sequence first ran.
        to_prefill: tokens that were to be computed when the sequence got its slot.
        checkpoints_at: lengths at which checkpoints are to be made, ascending: steps end there.
        proposer: proposes draft tokens; None: none are drafted.
        was_sought: whether parked prefixes were searched for the beginning of the sequence.
        credit: time that drafts have saved it, less what they may still cost it; see ``speculative.policy``.
        is_alone: whether the next token is computed without draft tokens.
        images: the image spans among the tokens.
        adapters: what it is computed with beside the weights.
        salt: made of that of the request and of the adapters: KV state is reused between equal salts only.
        scores_prompt: whether logits are computed for all tokens of the prompt, so that none comes from the cache.
    """

    __slots__ = (
        "_skipped",
        "adapters",
        "arrival",
        "cached_tokens",
        "checkpoints_at",
        "credit",
        "id",
        "images",
        "is_alone",
        "priority",
        "prompt_length",
        "proposer",
        "salt",
        "scores_prompt",
        "slot",
        "to_prefill",
        "tokens",
        "was_sought",
    )

    def __init__(
        self,
        sequence: SequenceId,
        arrival: int,
        prompt: list[int],
        priority: int = 0,
        images: ImageSpans | None = None,
        salt: str = "",
        adapters: AdapterSet = NO_ADAPTERS,
    ) -> None:
        self.id = sequence
        self.arrival = arrival
        self.priority = priority
        self.tokens = list(prompt)
        self.prompt_length = len(prompt)
        self.slot: Slot | None = None
        self.cached_tokens: int | None = None
        self.to_prefill = 0
        self.checkpoints_at: list[int] = []
        self.proposer: Proposer | None = None
        self.credit = 0.0
        self.was_sought = False
        self.is_alone = False
        self.images = images or {}
        self.adapters = adapters
        self.salt = adapter_salt(salt, adapters)
        self.scores_prompt = False
        # End of each image span, and the difference between its tokens and its positions.
        self._skipped = tuple(
            (at + image.length, image.length - image.positions)
            for at, token in enumerate(prompt)
            if token < 0 and (image := self.images.get(token)) is not None
        )

    @property
    def fed(self) -> int:
        """Number of tokens in the KV cache."""
        return len(self.slot.tokens) if self.slot else 0

    @property
    def pending(self) -> int:
        """Number of tokens to compute before the next one can be sampled: 1 while decoding, more during prefill."""
        return len(self.tokens) - self.fed

    def position_at(self, index: int) -> int:
        """Return the position of the token at ``index``, which is outside of all image spans or the first of one."""
        return index - sum(skipped for end, skipped in self._skipped if end <= index)

    @property
    def next_image(self) -> ImageSpan | None:
        """The image span that is to be computed next, if the next token is its first placeholder."""
        return self.images.get(self.tokens[self.fed]) if self.images and self.pending else None

    def text_within(self, count: int) -> int:
        """Return how many of the next ``count`` tokens come before an image span."""
        return text_run(self.tokens, self.fed, count) if self.images else count

    def will_save(self, reused: int, common: int) -> bool:
        """Have the sequence make a checkpoint of its first ``common`` tokens, if it is not past them.

        Returns:
            Whether it will make one of more than ``reused`` and at most ``common`` tokens.
        """
        within = [at for at in self.checkpoints_at if reused < at <= common]
        if common >= self.fed and common - max([reused, *within]) >= MIN_CHECKPOINT_DISTANCE:
            insort(self.checkpoints_at, common)
            return True
        return bool(within)

    @property
    def answer_length(self) -> int:
        """Number of tokens sampled so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(self.prompt_length, self.answer_length, self.cached_tokens or 0)


class Proposer(Protocol):
    """Proposes draft tokens for one sequence, and estimates how many of them are accepted."""

    @property
    def share(self) -> float:
        """Probability that a token of the last draft is accepted, if those before it are."""

    @property
    def kept(self) -> float:
        """Probability that the token behind the accepted ones is kept, and not computed again by itself."""

    def propose(self, tokens: collections.abc.Sequence[int], limit: int) -> list[int]:
        """Return at most ``limit`` tokens that may follow ``tokens``."""

    def record_verified(self, proposed: int, accepted: int, *, kept: bool) -> None:
        """Learn that ``proposed`` tokens of the last draft were verified, and the first ``accepted`` were right.

        kept: whether the token behind them was kept. Otherwise it was uncertain, and is computed again by itself.
        """
