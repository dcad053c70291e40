"""Which node gets a request. Pure: the caller gives the time, and feeds what is known.

A request goes where it is expected to begin and end first: to a node that has its model loaded, and the beginning of
its conversation computed, unless that node has clearly more to do; else where the model is loaded soonest, by the
node's own plan; among equals to the one with the least to do. What nodes report is up to seconds old. A node that
cannot take a request refuses it with a reason, and the next best is asked.

Hot path: ``choose`` runs once a request, in less than 0.1 ms however many nodes and models there are: it compares the
nodes that have the model and a few others, never all. docs/performance.md has the numbers.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from modelyard.cluster.node_report import NodeReport

MAX_COMPARED: Final = 16
"""Nodes that have the model which are compared for one request; of more, those that follow its place on the ring."""

OTHERS: Final = 4
"""Nodes without the model that are compared for one request, beside those that the planner has chosen for it."""

UNPLANNED_LOAD_S: Final = 10.0
"""Seconds that a load counts which a node has not planned: its files were not read there."""

FULL_S: Final = 5.0
"""Seconds that such a load counts more where it has to evict another model."""

PREFIX_REQUESTS: Final = 2.0
"""Requests that a node may have more than another one and still gets the conversation whose beginning it has."""

REFUSED_S: Final = 2.0
"""Seconds that a node which refused a model comes after the others, unless it says how long."""

MAX_REFUSED_S: Final = 60.0

MAX_PREFIXES: Final = 100_000
"""Conversations whose node is kept; those that were used longest ago are dropped."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request goes.

    Attributes:
        node: the name of the node.
        why: "prefix" where it has the beginning of the conversation, "resident" where it has the model, "loads" where
            the model is loaded for the request.
        cost_s: seconds until the request is expected to be answered, by which nodes were compared.
    """

    node: str
    why: str
    cost_s: float


@dataclass(slots=True)
class _Node:
    place: int
    report: NodeReport
    # Requests for each model that were sent since the report, which it does not count.
    sent: dict[str, int] = field(default_factory=dict)
    # Until when it comes after the others, by model.
    refused_until: dict[str, float] = field(default_factory=dict)


class RoutingTable:
    """The table of the nodes that one front reaches, and its choices."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        # By model: the nodes that have it, each behind its place on the ring, in that order.
        self._holders: dict[str, list[tuple[int, str]]] = {}
        # The same of all nodes.
        self._ring: list[tuple[int, str]] = []
        self._homes: Mapping[str, tuple[str, ...]] = {}
        self._prefixes: OrderedDict[str, str] = OrderedDict()

    # What is known

    def update(self, report: NodeReport) -> None:
        """Take a report, which takes the place of the one before. A node that was not known joins."""
        known = self._nodes.get(report.node)
        if known is None:
            known = self._nodes[report.node] = _Node(_place(report.node), NodeReport(report.node))
            insort(self._ring, (known.place, report.node))
        before, after = _residents(known.report), _residents(report)
        self._release(known, before - after)
        known.report = report
        known.sent.clear()
        for model in after - before:
            insort(self._holders.setdefault(model, []), (known.place, report.node))

    def remove(self, node: str) -> None:
        """Drop a node that is gone. Unknown ones are ignored."""
        known = self._nodes.pop(node, None)
        if known is not None:
            self._release(known, _residents(known.report))
            self._ring.remove((known.place, node))

    def _release(self, node: _Node, models: Iterable[str]) -> None:
        for model in models:
            holders = self._holders[model]
            holders.remove((node.place, node.report.node))
            if not holders:
                del self._holders[model]

    def set_homes(self, homes: Mapping[str, tuple[str, ...]]) -> None:
        """Take the nodes that the planner has chosen for each model."""
        self._homes = homes

    @property
    def nodes(self) -> Collection[str]:
        """The names of the known nodes."""
        return self._nodes.keys()

    def report(self, node: str) -> NodeReport | None:
        """Return the last report of a node; None for one that is not known."""
        known = self._nodes.get(node)
        return None if known is None else known.report

    # Choices

    def choose(self, model: str, key: str, now: float, tried: Collection[str] = ()) -> Choice | None:
        """Return the node for a request; None where none is left that was not tried.

        Args:
            model: id of its model.
            key: equal for the requests of one conversation; "": it has none.
            now: the present time.
            tried: nodes that have refused the request.
        """
        preferred = self._prefixes.get(key) if key else None
        best: Choice | None = None
        best_rank: tuple[bool, float] | None = None
        for name in self._candidates(model, key, preferred, tried):
            node = self._nodes[name]
            cost_s, is_resident, failed = _cost(node, model)
            why = "resident" if is_resident else "loads"
            if name == preferred and is_resident:
                cost_s -= PREFIX_REQUESTS * node.report.service_s / node.report.slots
                why = "prefix"
            rank = failed or node.refused_until.get(model, 0.0) > now, cost_s
            if best_rank is None or rank < best_rank:
                best, best_rank = Choice(name, why, cost_s), rank
        return best

    def note_sent(self, node: str, model: str, key: str) -> None:
        """Note that a node was sent a request for ``model`` of the conversation ``key``."""
        if (known := self._nodes.get(node)) is not None:
            known.sent[model] = known.sent.get(model, 0) + 1
        if key:
            self._prefixes[key] = node
            self._prefixes.move_to_end(key)
            if len(self._prefixes) > MAX_PREFIXES:
                self._prefixes.popitem(last=False)

    def note_refused(self, node: str, model: str, now: float, retry_after_s: float | None = None) -> None:
        """Note that a node refused a request for ``model``, and for how long it asks to be spared."""
        if (known := self._nodes.get(node)) is not None:
            known.refused_until[model] = now + min(retry_after_s or REFUSED_S, MAX_REFUSED_S)
            if known.sent.get(model):
                known.sent[model] -= 1

    def _candidates(self, model: str, key: str, preferred: str | None, tried: Collection[str]) -> Iterable[str]:
        """Return the nodes to compare for a request, each once: some with the model, its homes, and a few others."""
        names: dict[str, None] = {}
        if preferred in self._nodes:
            names[preferred] = None
        holders = _from(self._holders.get(model, ()), key or model)
        names.update(dict.fromkeys(islice((name for name in holders if self._may_take(name, tried)), MAX_COMPARED)))
        names.update(dict.fromkeys(name for name in self._homes.get(model, ()) if name in self._nodes))
        usable = [name for name in names if self._may_take(name, tried)]
        others = (name for name in _from(self._ring, model) if name not in names and self._may_take(name, tried))
        return [*usable, *islice(others, OTHERS)]

    def _may_take(self, name: str, tried: Collection[str]) -> bool:
        return name not in tried and not self._nodes[name].report.is_draining


def _residents(report: NodeReport) -> set[str]:
    return {model for model, each in report.models.items() if each.is_resident}


def _from(ring: Sequence[tuple[int, str]], key: str) -> Iterator[str]:
    """Yield the nodes of a ring from the place of ``key`` on: the same ones first while others come and go."""
    if not ring:
        return
    start = bisect_left(ring, (_place(key), ""))
    for index in range(len(ring)):
        yield ring[(start + index) % len(ring)][1]


def _cost(node: _Node, model: str) -> tuple[float, bool, bool]:
    """Return the seconds until a request is answered by ``node``; whether it has the model, and whether that failed."""
    report = node.report
    known = report.models.get(model)
    sent = node.sent.get(model, 0)
    if known is None:
        ready_s = UNPLANNED_LOAD_S + (0.0 if report.free_bytes else FULL_S)
        ahead, is_resident, failed = sent, False, False
    else:
        ready_s, is_resident, failed = known.ready_s, known.is_resident, bool(known.failure)
        ahead = known.running + known.waiting + sent
    # Requests share the machine; those beyond the slots wait for others to end.
    beyond = max(0, ahead + 1 - report.slots)
    wait_s = report.service_s * (ahead + beyond) / report.slots
    return ready_s + wait_s, is_resident, failed


def _place(name: str) -> int:
    """Return the place of a name on the ring."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
