"""A radix tree over token sequences: what is stored under the prefixes of a prompt, and how far any of it agrees. Pure.

A walk costs one comparison of slices for each node on the path of the prompt, however much is stored beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

_STRIDE = 64


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common prefix of two token lists."""
    end = min(len(a), len(b))
    at = 0
    while at < end and a[at : at + _STRIDE] == b[at : at + _STRIDE]:
        at += _STRIDE
    if at >= end:
        return end
    while at < end and a[at] == b[at]:
        at += 1
    return at


@dataclass(slots=True, eq=False)
class _Node(Generic[T]):
    """The tokens between its parent and itself, and the values stored under the tokens up to here."""

    edge: tuple[int, ...] = ()
    children: dict[int, _Node[T]] = field(default_factory=dict)
    values: list[T] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PrefixMatch(Generic[T]):
    """What a tree stores for a prompt.

    Attributes:
        stored: the values stored under prefixes of the prompt, each with the length of its prefix, the shortest first.
        common: length of the longest prefix of the prompt that anything stored begins with.
        nearest: a value stored under a sequence that begins with these ``common`` tokens; None where nothing is stored.
    """

    stored: list[tuple[int, T]]
    common: int
    nearest: T | None


class PrefixTree(Generic[T]):
    """Values, each stored under a sequence of tokens and the salt of the requests that it was computed for."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node[T]] = {}

    def add(self, tokens: Sequence[int], value: T, salt: str = "") -> None:
        """Store ``value`` under ``tokens``, beside others that are stored there."""
        node, at = self._roots.setdefault(salt, _Node()), 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                child = _Node(tuple(tokens[at:]))
                node.children[tokens[at]] = child
            else:
                shared = _shared(child.edge, tokens, at)
                if shared < len(child.edge):
                    upper = _Node[T](child.edge[:shared])
                    child.edge = child.edge[shared:]
                    upper.children[child.edge[0]] = child
                    node.children[tokens[at]] = child = upper
            node, at = child, at + len(child.edge)
        node.values.append(value)

    def remove(self, tokens: Sequence[int], value: T, salt: str = "") -> None:
        """Remove ``value`` from ``tokens``, under which it is stored."""
        path, at = [self._roots[salt]], 0
        while at < len(tokens):
            path.append(path[-1].children[tokens[at]])
            at += len(path[-1].edge)
        path[-1].values.remove(value)
        while len(path) > 1 and not path[-1].values and not path[-1].children:
            empty = path.pop()
            del path[-1].children[empty.edge[0]]
        node = path[-1]
        if len(path) > 1 and not node.values and len(node.children) == 1:
            (child,) = node.children.values()
            child.edge = (*node.edge, *child.edge)
            path[-2].children[child.edge[0]] = child
        elif len(path) == 1 and not node.values and not node.children:
            del self._roots[salt]

    def match(self, tokens: Sequence[int], salt: str = "") -> PrefixMatch[T]:
        """Return what is stored for a prompt that begins with ``tokens``."""
        node, at, stored = self._roots.get(salt), 0, list[tuple[int, T]]()
        if node is None:
            return PrefixMatch([], 0, None)
        while True:
            stored += ((at, value) for value in node.values)
            child = node.children.get(tokens[at]) if at < len(tokens) else None
            if child is None:
                return PrefixMatch(stored, at, _any_value(node))
            shared = _shared(child.edge, tokens, at)
            at += shared
            if shared < len(child.edge):
                return PrefixMatch(stored, at, _any_value(child))
            node = child


def _shared(edge: tuple[int, ...], tokens: Sequence[int], at: int) -> int:
    """Return how many tokens of an edge agree with ``tokens`` from ``at`` on."""
    return common_prefix(edge, tuple(tokens[at : at + len(edge)]))


def _any_value(node: _Node[T]) -> T:
    """Return a value of a node or of one below it; each leaf has one."""
    while not node.values:
        node = next(reversed(node.children.values()))
    return node.values[0]
