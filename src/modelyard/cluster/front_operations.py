"""The nodes of a cluster as the yard of a front asks them; see ``yard.runtime.nodes.Nodes``."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

from modelyard.cluster.front_nodes import REFUSALS, RETRY_S, FrontNodes
from modelyard.cluster.node_report import ModelReport, NodeReport
from modelyard.cluster.node_tasks import adapter_fields, plan_of
from modelyard.config import Adapter
from modelyard.errors import InvalidRequest, ModelyardError, NodeNotFound, RemoteUnavailable
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.stats.node_metrics import NodeScrape
from modelyard.yard.stats.nodes import ModelOnNode, NodeState, NodeStatus
from modelyard.yard.stats.status import Plan

logger = logging.getLogger(__name__)

SILENT_S: Final = 3.0
"""Seconds without a word, six reports long, after which a node is shown as silent."""

FACTS_S: Final = 30.0
"""Seconds after which a node is asked again what a model is: its settings may have changed."""

METRICS_S: Final = 2.0
"""Seconds in which a node answers a scrape, or is left out of it: Prometheus waits for ten."""

LOST: Final = (RemoteUnavailable, NodeNotFound)
"""What is raised for a node that has gone since it was chosen."""


class NodeOperations:
    """What the yard of a front asks the nodes for. Use it on the front's event loop.

    Args:
        nodes: the nodes.
    """

    def __init__(self, nodes: FrontNodes) -> None:
        self._nodes = nodes
        nodes.on_joined, nodes.on_report = self._on_joined, self._on_report
        # What nodes know of models that they have loaded, and when they were asked for it.
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._asked_at: dict[str, float] = {}
        # Of models whose adapters are not as configured: a node that joins has those of the configuration.
        self._adapters: dict[str, tuple[Adapter, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # What they have

    def status(self) -> list[NodeStatus]:
        """Return the connected nodes."""
        return [node_status(report, self._nodes.silent_s(report.node)) for report in self._nodes.reports]

    def of_model(self, model: str, node: str | None = None) -> Mapping[str, ModelOnNode]:
        """Return the nodes that have a model or had it."""
        if node is not None:
            self._nodes.check(node)
        found = {}
        for report in self._nodes.reports:
            if node is None and model in report.models:
                found[report.node] = model_on_node(report.models[model])
            elif node == report.node:
                known = report.models.get(model)
                found[report.node] = ModelOnNode(LoadState.UNLOADED) if known is None else model_on_node(known)
        return found

    def facts(self, model: str) -> Mapping[str, Any]:
        """Return what nodes know of a model since one has loaded it."""
        return self._facts.get(model, {})

    def _on_report(self, report: NodeReport) -> None:
        now = time.monotonic()
        for model, known in report.models.items():
            is_loaded = known.is_resident and not known.ready_s
            if is_loaded and now - self._asked_at.get(model, -math.inf) > FACTS_S:
                self._asked_at[model] = now
                self._begin(self._read_facts(report.node, model))

    async def _read_facts(self, node: str, model: str) -> None:
        try:
            self._facts[model] = await self._nodes.ask(node, "facts", model)
        except ModelyardError as failed:
            logger.info("The node %s has not described %s: %s", node, model, failed)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Loads and unloads

    async def unload(self, model: str, mode: UnloadMode, node: str | None) -> None:
        """Free a model on one node, or on all."""
        if node is not None:
            await self._nodes.ask(node, "unload", model, mode.value)
            return
        # Also where it is unloaded: it may be parked.
        for failed in await self._ask_all(self.of_model(model), "unload", model, mode.value):
            raise failed[1]

    async def reload(self, model: str, node: str | None) -> None:
        """Load a model on one node, or where it costs least."""
        await self._ask_one(model, node, "reload")

    async def prepare(self, model: str, node: str | None) -> None:
        """Download and convert the files of a model on one node."""
        await self._ask_one(model, node, "prepare")

    async def plan(self, model: str, node: str | None) -> Plan:
        """Return what a load of a model would do."""
        found, fields = await self._ask_one(model, node, "plan")
        return plan_of(fields, found)

    async def _ask_one(self, model: str, node: str | None, what: str) -> tuple[str, Any]:
        """Ask ``node``; without one, where the model is, else where its load costs least, until one can do it.

        Returns:
            The node, and its answer.
        """
        if node is not None:
            return node, await self._nodes.ask(node, what, model)
        refused: ModelyardError = RemoteUnavailable(model, "no node of the cluster is connected", RETRY_S)
        tried: set[str] = set()
        while (found := self._best(model, tried)) is not None:
            try:
                return found, await self._nodes.ask(found, what, model)
            except ModelyardError as failed:
                if failed.code not in REFUSALS and not isinstance(failed, LOST):
                    raise
                refused = failed
                tried.add(found)
        raise refused

    def _best(self, model: str, tried: set[str]) -> str | None:
        """Return the node that has a model, else the one where its load costs least; None where none is left."""
        holders = {
            report.models[model].ready_s: report.node
            for report in self._nodes.reports
            if report.node not in tried
            and not report.is_draining
            and model in report.models
            and report.models[model].is_resident
        }
        if holders:
            return holders[min(holders)]
        choice = self._nodes.table.choose(model, "", time.monotonic(), tried)
        return None if choice is None else choice.node

    async def _ask_all(self, nodes: Iterable[str], what: str, *args: Any) -> list[tuple[str, ModelyardError]]:
        """Ask nodes at the same time; return those that failed. One that is lost meanwhile has nothing left to do."""
        names = list(nodes)
        outcomes = await asyncio.gather(*(self._nodes.ask(node, what, *args) for node in names), return_exceptions=True)
        failed = []
        for node, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, LOST):
                continue
            if isinstance(outcome, ModelyardError):
                failed.append((node, outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        return failed

    # Metrics

    async def metrics(self) -> NodeScrape:
        """Return the metrics of all nodes that answer in time."""
        tasks = {
            report.node: asyncio.create_task(self._nodes.ask(report.node, "metrics")) for report in self._nodes.reports
        }
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=METRICS_S)
            found = {node: task.result() for node, task in tasks.items() if task.done() and not task.exception()}
        finally:
            for task in tasks.values():
                task.cancel()
        return NodeScrape(found, len(tasks) - len(found))

    # Adapters

    async def set_adapters(self, model: str, before: Sequence[Adapter], adapters: Sequence[Adapter]) -> None:
        """Have all nodes serve a model with ``adapters`` in place of those of ``before``."""
        # Nodes that join meanwhile are sent them when they do.
        self._adapters[model] = tuple(adapters)
        failed = await self._send_adapters(model, [report.node for report in self._nodes.reports])
        if not failed:
            return
        self._adapters[model] = tuple(before)
        await self._send_adapters(model, [report.node for report in self._nodes.reports])
        node, error = failed[0]
        if isinstance(error, InvalidRequest):
            raise InvalidRequest(f"On the node {node}: {error}", error.param)
        raise error

    async def _send_adapters(self, model: str, nodes: Sequence[str]) -> list[tuple[str, ModelyardError]]:
        fields = tuple(map(adapter_fields, self._adapters[model]))
        return await self._ask_all(nodes, "adapters", model, fields)

    def forget_adapters(self) -> None:
        """Have nodes that join keep the adapters of the configuration, which was read again."""
        self._adapters.clear()

    def _on_joined(self, node: str) -> None:
        if self._adapters:
            self._begin(self._prepare(node))

    async def _prepare(self, node: str) -> None:
        for model in list(self._adapters):
            for _, failed in await self._send_adapters(model, [node]):
                logger.warning("The node %s has not got the adapters of %s: %s", node, model, failed)


def node_status(report: NodeReport, silent_s: float) -> NodeStatus:
    """Return a node as it is shown. Pure.

    Args:
        report: its last report.
        silent_s: seconds since it has sent anything.
    """
    state: NodeState = "silent" if silent_s > SILENT_S else "draining" if report.is_draining else "up"
    models = {name: model_on_node(model) for name, model in report.models.items()}
    return NodeStatus(report.node, state, report.budget_bytes, report.used_bytes, models)


def model_on_node(report: ModelReport) -> ModelOnNode:
    """Return a model on a node as it is shown. Pure."""
    if report.is_resident:
        load_state = LoadState.LOADING if report.ready_s else LoadState.LOADED
    else:
        load_state = LoadState.FAILED if report.failure else LoadState.UNLOADED
    return ModelOnNode(load_state, report.running, report.waiting, report.size_bytes, report.failure)
