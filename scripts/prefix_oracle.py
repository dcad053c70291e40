"""What an oracle that knows all requests reuses of their prompts. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelyard.engine.kv.prefix_tree import common_prefix


@dataclass(eq=False)
class _Node:
    """Tokens that the same requests share, in the tree of all requests; the first ``held`` of them are in memory."""

    tokens: list[int]
    depth: int
    children: dict[int, _Node] = field(default_factory=dict)
    uses: list[int] = field(default_factory=list)
    held: int = 0


def most_reusable(sequences: Sequence[tuple[Sequence[int], Sequence[int]]], capacity: int) -> list[int]:
    """Return what an oracle reuses of each prompt with memory for ``capacity`` tokens: it keeps what is needed soonest.

    That is the best that can be done where a part of memory is freed token by token. Source: L. Belady, "A Study of
    Replacement Algorithms for a Virtual-Storage Computer", 1966.

    Args:
        sequences: each prompt, with the answer to it, in the order of the requests.
        capacity: tokens that are held together; each prompt and its answer must fit.
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
