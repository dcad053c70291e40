"""How much of a trace's prompts the engine's scheduling reuses, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from agent_trace import END, AgentRequest, prompt_of
from prefix_oracle import most_reusable

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.checkpoints import CheckpointStore
from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Context
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.protocol.kv_snapshot import KvState
from modelyard.protocol.values import SequenceId
from support.naive_llama import cost

TOKEN_BYTES = 100


class _Cells:
    """llama.cpp's side: states as large as they would be, without content."""

    def __init__(self, cache: KvCache, state_bytes: int, window: int) -> None:
        self._cache, self._state_bytes, self._window = cache, state_bytes, window

    def first_position(self, slot: int) -> int:
        return max(0, len(self._cache.slots[slot].tokens) - self._window)

    def own_window(self, slot: int) -> None: ...

    def trim(self, slot: int, length: int) -> None: ...

    def share(self, source: int, target: int, length: int) -> None: ...

    def merge(self, source: int, target: int, length: int) -> None: ...

    def restore_state(self, slot: int, state: KvState) -> None: ...

    def save_state(self, slot: int) -> KvState:
        return np.broadcast_to(np.uint8(0), self._state_bytes)

    def state_bytes(self, slot: int) -> int:
        return self._state_bytes + TOKEN_BYTES * len(self._cache.slots[slot].tokens)

    def save(self, slot: int) -> KvState:
        return np.broadcast_to(np.uint8(0), self.state_bytes(slot))

    def restore(self, slot: int, state: KvState) -> bool:
        return True


@dataclass
class Served:
    """An engine's scheduling and memory, which serves one request after the other.

    ``state_bytes``: of a model whose memory cannot be cut back, whose ``checkpoints`` are kept; 0: of one that can.
    ``window``: of layers that hold no more than that, of a model that can be cut back within it; 0: it has none.
    """

    capacity: int
    state_bytes: int = 0
    checkpoints: int = 0
    window: int = 0
    slots: int = 20
    prefixes: int = 16
    reused: list[int] = field(default_factory=list)
    computed: int = 0

    def __post_init__(self) -> None:
        store = CheckpointStore(self.checkpoints * self.state_bytes) if self.state_bytes else None
        can_trim = store is None or self.window > 0
        cache = KvCache(self.capacity, self.slots, checkpoints=store, can_trim=can_trim)
        cache.has_short_windows = self.window > 0
        self.scheduler = Scheduler(
            cache,
            max_running=self.slots - self.prefixes,
            batch_tokens=512,
            prefill_beside_decode=64,
            can_trim=can_trim,
            cost=cost(overhead=10.0),
            turn_ends={END},
        )
        self.offload = KvOffload(
            "m",
            cache,
            cast(Context, _Cells(cache, self.state_bytes, self.window)),
            window=self.window,
            parked_bytes=0 if self.state_bytes else self.capacity * TOKEN_BYTES // 4,
            max_prefixes=self.prefixes,
        )

    def serve(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        number = SequenceId(len(self.reused))
        sequence = TokenSequence(number, number, list(prompt))
        self.scheduler.add(sequence)
        while sequence.answer_length < len(answer):
            self.offload.find_shortest()
            self.offload.prepare_step(self.scheduler.admissible)
            chunks = self.scheduler.schedule()
            self.offload.carry_out()
            self.computed += sum(len(chunk.tokens) for chunk in chunks)
            if self.scheduler.save_checkpoints(chunks):
                self.offload.carry_out()
            if chunks[-1].outputs:
                sequence.tokens.append(answer[sequence.answer_length])
        assert sequence.cached_tokens is not None
        self.reused.append(sequence.cached_tokens)
        self.scheduler.remove(number)
        self.offload.carry_out()


def reused_part(served: Served, requests: Iterable[AgentRequest], memory: int) -> float:
    """What is reused of all prompts, as a part of what an oracle reuses with memory for ``memory`` tokens."""
    sequences = [(prompt_of(request), [*request.answer.words, END]) for request in requests]
    for prompt, answer in sequences:
        served.serve(prompt, answer)
    return sum(served.reused) / sum(most_reusable(sequences, memory))
