"""Checkpoints: states of sequences at points that later prompts are likely to continue from. Pure.

A recurrent layer keeps one state for the whole past, which cannot be cut back to an earlier token; a sliding window
keeps its last tokens only. To reuse a prefix that ends anywhere but at the end of what a slot holds, the state at that
point is needed. A checkpoint is a copy of it in host memory. It has nothing of the layers that see everything: their
cells are in the slots, and a checkpoint fits every slot that begins with its tokens.

What is dropped first for a new checkpoint is the one that saves the least computation for its bytes, with the age of
its last use counted in: GreedyDual-Size.

Source: P. Cao, S. Irani, "Cost-Aware WWW Proxy Caching Algorithms", 1997.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.engine.kv.prefix_tree import PrefixTree
from modelyard.protocol.kv_snapshot import KvState

# Checkpoints are at least as many tokens apart: fewer are computed in the time that a copy takes.
MIN_CHECKPOINT_DISTANCE: Final = 32

# A prompt without other boundaries gets a checkpoint after so many tokens.
CHECKPOINT_INTERVAL: Final = 1024


@dataclass(slots=True, eq=False)
class Checkpoint:
    """The state of a sequence behind ``tokens``.

    Attributes:
        tokens: all tokens that the state depends on.
        salt: salt of the requests that may use it.
        state: what ``Context.save_state`` returns.
        age_base: value of ``CheckpointStore``'s clock when it was last used.
    """

    tokens: tuple[int, ...]
    salt: str
    state: KvState
    age_base: float = 0.0


class CheckpointStore:
    """The checkpoints of one engine, in at most ``limit_bytes``."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._tree = PrefixTree[Checkpoint]()
        # In order of the last use, the most recent last. Used as a set that is ordered.
        self._all: dict[Checkpoint, None] = {}
        # Rises to the value of what is dropped, so that what is not used becomes worth less than what is.
        self._clock = 0.0

    def limit(self, limit_bytes: int) -> None:
        """Change the limit; what exceeds it is dropped, the least recently used first."""
        self.limit_bytes = limit_bytes
        while self.size_bytes > limit_bytes:
            self._drop(next(iter(self._all)))

    def __iter__(self) -> Iterator[Checkpoint]:
        """Yield all checkpoints, the most recently used first."""
        return reversed(self._all)

    def along(self, tokens: Sequence[int], salt: str) -> list[Checkpoint]:
        """Return the checkpoints of prefixes of ``tokens``, the shortest first."""
        return [checkpoint for _, checkpoint in self._tree.match(tokens, salt).stored]

    def use(self, checkpoint: Checkpoint) -> None:
        """Record that a sequence continues from ``checkpoint``."""
        if checkpoint in self._all:
            del self._all[checkpoint]
            self._all[checkpoint] = None
            checkpoint.age_base = self._clock

    def covers(self, tokens: Sequence[int], salt: str) -> bool:
        """Whether a checkpoint for ``tokens`` is worth no copy, because another one is little shorter."""
        along = self.along(tokens, salt)
        return len(tokens) - (len(along[-1].tokens) if along else 0) < MIN_CHECKPOINT_DISTANCE

    def add(self, checkpoint: Checkpoint, held: Iterable[tuple[Sequence[int], str]]) -> None:
        """Keep ``checkpoint`` as the most recently used, unless it is larger than the store or there is one already.

        Args:
            checkpoint: the new one.
            held: tokens and salts of all slots: checkpoints of other tokens are dropped first.
        """
        size = checkpoint.state.nbytes
        along = self.along(checkpoint.tokens, checkpoint.salt)
        if size > self.limit_bytes or (along and len(along[-1].tokens) == len(checkpoint.tokens)):
            return
        if self.size_bytes + size > self.limit_bytes:
            usable = {checkpoint for tokens, salt in held for checkpoint in self.along(tokens, salt)}
            while self.size_bytes + size > self.limit_bytes:
                self._drop(self._first_to_go(usable))
        checkpoint.age_base = self._clock
        self._tree.add(checkpoint.tokens, checkpoint, checkpoint.salt)
        self._all[checkpoint] = None
        self.size_bytes += size

    def _first_to_go(self, usable: Collection[Checkpoint]) -> Checkpoint:
        """Return the checkpoint to drop: one that no slot fits, else the least valuable of the salt that holds most."""
        for checkpoint in self._all:
            if checkpoint not in usable:
                return checkpoint
        held: Counter[str] = Counter()
        for checkpoint in self._all:
            held[checkpoint.salt] += checkpoint.state.nbytes
        most = max(held.values())
        victim = min((checkpoint for checkpoint in self._all if held[checkpoint.salt] == most), key=self._value)
        self._clock = max(self._clock, self._value(victim))
        return victim

    def _value(self, checkpoint: Checkpoint) -> float:
        """Return the tokens that would be computed again without it, for each of its bytes, plus its clock."""
        along = self.along(checkpoint.tokens, checkpoint.salt)
        shorter = len(along[-2].tokens) if len(along) > 1 else 0
        return checkpoint.age_base + (len(checkpoint.tokens) - shorter) / checkpoint.state.nbytes

    def _drop(self, checkpoint: Checkpoint) -> None:
        del self._all[checkpoint]
        self._tree.remove(checkpoint.tokens, checkpoint, checkpoint.salt)
        self.size_bytes -= checkpoint.state.nbytes


def checkpoint_positions(tokens: Sequence[int], start: int, common: int, turn_ends: Collection[int]) -> list[int]:
    """Return the lengths at which to make checkpoints while a prompt is computed, ascending.

    These are the end of its first turn (a system prompt with its tools, which other conversations share), the end of
    its last turn (the next prompt repeats it, but may put something else behind it than this one's beginning of an
    answer), the point where it parts from what others have computed, and points between them where these are far apart.
    A prompt without turns has one at its end.

    Args:
        tokens: the prompt, and the answer so far where it is computed again. Its last token is computed by itself.
        start: length of what is reused.
        common: length of the longest prefix that anything kept begins with.
        turn_ends: tokens that end a turn.
    """
    last = len(tokens) - 1
    ends = [at for at, token in enumerate(tokens[:last], 1) if token in turn_ends]
    end = last if not ends or last - ends[-1] >= MIN_CHECKPOINT_DISTANCE else ends[-1]
    # What most others can use comes first, since the others must lie apart from it.
    wanted = [*ends[:1], common, end]
    wanted += range(start - start % CHECKPOINT_INTERVAL, last, CHECKPOINT_INTERVAL)
    chosen: list[int] = [start]
    for position in wanted:
        if start < position <= last and all(abs(position - other) >= MIN_CHECKPOINT_DISTANCE for other in chosen):
            chosen.append(position)
    return sorted(chosen[1:])
