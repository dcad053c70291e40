"""How much of a trace's prompts is reused: by the engine's scheduling without a model, and by an oracle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from agent_trace import WORDS, AgentRequest, Message

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.checkpoints import CheckpointStore
from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.prefix_tree import common_prefix
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Context
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.protocol.kv_snapshot import KvState
from modelyard.protocol.values import SequenceId
from support.naive_llama import cost

END = WORDS
_ROLES = {"system": WORDS + 1, "user": WORDS + 2, "assistant": WORDS + 3, "tool": WORDS + 4}
TOKEN_BYTES = 100


def tokens_of(message: Message) -> list[int]:
    """As a chat template writes it: who speaks, what they say, and the token that ends a turn."""
    return [_ROLES[message.role], *message.words, END]


def prompt_of(request: AgentRequest) -> list[int]:
    """With the beginning of the answer, behind which the model goes on."""
    return [*(token for message in request.messages for token in tokens_of(message)), _ROLES["assistant"]]


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


@dataclass(eq=False)
class _Node:
    """Tokens that the same requests share, in the tree of all requests; the first ``held`` of them are in memory."""

    tokens: list[int]
    depth: int
    children: dict[int, _Node] = field(default_factory=dict)
    uses: list[int] = field(default_factory=list)
    held: int = 0


def most_reusable(sequences: Sequence[tuple[Sequence[int], Sequence[int]]], capacity: int) -> list[int]:
    """What an oracle reuses of each prompt with memory for ``capacity`` tokens: it keeps what is needed soonest.

    That is the best that can be done where a part of memory is freed token by token. Source: L. Belady, "A Study of
    Replacement Algorithms for a Virtual-Storage Computer", 1966.
    """
    root = _Node([], 0)
    paths = [_path(root, [*prompt, *answer]) for prompt, answer in sequences]
    # A node that was divided since has been replaced on earlier paths.
    paths = [_path(root, [*prompt, *answer]) for prompt, answer in sequences]
    for at, path in enumerate(paths):
        for node in path:
            node.uses.append(at)
    everything = list({id(node): node for path in paths for node in path}.values())
    reusable = []
    for at, ((prompt, _), path) in enumerate(zip(sequences, paths, strict=True)):
        found = 0
        for node in path:
            found += node.held
            if node.held < len(node.tokens):
                break
        reusable.append(min(found, len(prompt) - 1))
        for node in path:
            node.held = len(node.tokens)
        excess = sum(node.held for node in everything) - capacity
        others = [node for node in everything if node.held and node not in path]
        for node in sorted(others, key=lambda node: (-_next_use(node, at), -node.depth)):
            if excess <= 0:
                break
            given_up = min(excess, node.held)
            node.held -= given_up
            excess -= given_up
        assert excess <= 0, "a request does not fit by itself"
    return reusable


def _next_use(node: _Node, at: int) -> float:
    return next((use for use in node.uses if use > at), math.inf)


def _path(root: _Node, tokens: list[int]) -> list[_Node]:
    node, at, path = root, 0, []
    while at < len(tokens):
        child = node.children.get(tokens[at])
        if child is None:
            child = node.children[tokens[at]] = _Node(tokens[at:], at)
        shared = common_prefix(child.tokens, tokens[at : at + len(child.tokens)])
        if shared < len(child.tokens):
            lower = _Node(child.tokens[shared:], child.depth + shared, child.children)
            child.tokens, child.children = child.tokens[:shared], {lower.tokens[0]: lower}
        path.append(child)
        node, at = child, at + shared
    return path


def reused_part(served: Served, requests: Iterable[AgentRequest], memory: int) -> float:
    """What is reused of all prompts, as a part of what an oracle reuses with memory for ``memory`` tokens."""
    sequences = [(prompt_of(request), [*request.answer.words, END]) for request in requests]
    for prompt, answer in sequences:
        served.serve(prompt, answer)
    return sum(served.reused) / sum(most_reusable(sequences, memory))
