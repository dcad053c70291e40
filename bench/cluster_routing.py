"""Nine models on three nodes with the memory of one model each: ``python -m bench.cluster_routing [--real]``.

The same trace is routed as a cluster does, with its planner, and as Ray Serve does unless it is told otherwise: of two
nodes drawn at random to the one with fewer requests. A front and nodes run in one process, with yards and connections
as in a cluster. Engines compute nothing: a load takes 4 s, and each sequence gets 50 tokens a second. With ``--real``
they are those of SmolLM2-135M, whose load is nearly free.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.files import ROOT, weights
from bench.servers.http_only import ScriptedEngine
from bench.traces import Arrival, poisson
from modelyard.cluster.front_models import ClusterModels, front_config, node_config
from modelyard.cluster.front_nodes import FrontNodes
from modelyard.cluster.node_book import NodeBook
from modelyard.cluster.node_server import NodeServer
from modelyard.cluster.routing import Choice, RoutingTable
from modelyard.config import Config, validate_config
from modelyard.config.cluster import Cluster
from modelyard.errors import ModelyardError
from modelyard.protocol.prompts import Text
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

MODELS, NODES, SEED = 9, 3, 1
LOAD_S, STEP_S = 4.0, 0.02
SECRET: Final = "bench"
# A request whose first token came within so many seconds is good.
GOOD_S: Final = 5.0
LATE_S: Final = 120.0


class LoadingEngine(ScriptedEngine):
    """An engine that takes its time to load."""

    step_s = STEP_S

    def load(self) -> None:
        """Load."""
        time.sleep(LOAD_S)


class TwoChoices(RoutingTable):
    """Routes as Ray Serve's default: it knows the queues of nodes, and nothing of models."""

    def __init__(self) -> None:
        super().__init__()
        self._draw = random.Random(SEED)

    def choose(self, model: str, key: str, now: float, tried: Collection[str] = ()) -> Choice | None:
        """Return the node with fewer requests of two that are drawn."""
        del model, key, now
        left = sorted(set(self.nodes) - set(tried))
        two = self._draw.sample(left, min(2, len(left)))
        return Choice(min(two, key=self._requests), "random", 0.0) if two else None

    def _requests(self, node: str) -> int:
        known = self._nodes[node]
        reported = sum(model.running + model.waiting for model in known.report.models.values())
        return reported + sum(known.sent.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trace: seconds to each first token, sorted, LATE_S where there was none; and loads."""

    first_s: list[float]
    loads: int


def models_config(files: list[Path], budget: int) -> Config:
    """Return the configuration of the cluster."""
    models = [
        {"model_id": str(file), "alias": f"m{number}", "load": "on-demand", "device": {"max_seq_len": 1024}}
        for number, file in enumerate(files)
    ]
    tables = {"models": models, "runtime": {"max_seqs": 8, "isolation": "thread", "trial": False}}
    return validate_config({**tables, "memory": {"budget": f"{budget}B"}})


async def bytes_of_one(files: list[Path]) -> int:
    """Return the memory that a model takes."""
    yard = Yard(models_config(files, 16 << 30))
    await yard.start()
    try:
        return (await yard.plan("m0")).needed_bytes
    finally:
        await yard.close()


async def play(trace: list[Arrival], files: list[Path], budget: int, *, routes: bool, real: bool) -> Outcome:
    """Play a trace on a new cluster."""
    config = models_config(files, budget)
    front_nodes, book = FrontNodes(SECRET), NodeBook(Cluster(max_nodes=NODES))
    if not routes:
        front_nodes.table = TwoChoices()
    front = Yard(front_config(config), remotes=ClusterModels(front_nodes))
    nodes: list[NodeServer] = []
    async with contextlib.AsyncExitStack() as stack:
        await front.start()
        stack.push_async_callback(front.close)
        stack.push_async_callback(front_nodes.close)
        addresses: dict[str, tuple[str, int]] = {}
        for number in range(NODES):
            yard = Yard(node_config(config)) if real else Yard(node_config(config), LoadingEngine)
            await yard.start()
            stack.push_async_callback(yard.close)
            node = NodeServer(yard, f"n{number}", SECRET)
            addresses[node.name] = "127.0.0.1", await node.start("127.0.0.1")
            stack.push_async_callback(node.close)
            nodes.append(node)
        front_nodes.follow(addresses)
        await front_nodes.until_connected(NODES, 10.0)
        planning = asyncio.create_task(plan(book, nodes, front_nodes)) if routes else None
        began = time.monotonic()
        first_s = await asyncio.gather(*(ask(front, arrival, began) for arrival in trace))
        if planning is not None:
            planning.cancel()
        return Outcome(sorted(first_s), sum(loads_of(node) for node in nodes))


def loads_of(node: NodeServer) -> int:
    """Return how many loads a node has begun."""
    return sum(counters.loads.total() for counters in node.yard.controller.counters.values())


async def plan(book: NodeBook, nodes: list[NodeServer], front: FrontNodes) -> None:
    """Do what the directory of a cluster does."""
    loads: set[asyncio.Task[object]] = set()
    while True:
        for node in nodes:
            for model in book.register(node.name, ("", 0), {}, node.report(), time.monotonic()):
                loads.add(asyncio.create_task(node.yard.reload(model)))
        front.table.set_homes(book.homes)
        await asyncio.sleep(1.0)


async def ask(front: Yard, arrival: Arrival, began: float) -> float:
    """Ask one request, and return the seconds to its first token."""
    await asyncio.sleep(began + arrival.at_s - time.monotonic())
    asked = time.monotonic()
    request = Request(Text(arrival.prompt), f"m{arrival.model}", max_tokens=arrival.tokens)
    first = 0.0
    with contextlib.suppress(ModelyardError, TimeoutError):
        async with asyncio.timeout(LATE_S), front.generate(request) as stream:
            async for _ in stream:
                first = first or time.monotonic()
    return first - asked if first else LATE_S


def shown(name: str, outcome: Outcome, seconds: float) -> str:
    """Return a line of the result."""
    first = outcome.first_s
    good = sum(each <= GOOD_S for each in first)
    return (
        f"{name:12} first token p50 {first[len(first) // 2]:6.2f} s, p90 {first[int(0.9 * len(first))]:6.2f} s; "
        f"within {GOOD_S:.0f} s {good / seconds:5.2f} of {len(first) / seconds:.2f} requests a second; "
        f"{outcome.loads} loads"
    )


def main() -> None:
    """Play the trace both ways."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_routing", description=__doc__)
    parser.add_argument("--real", action="store_true", help="with engines that compute")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the trace")
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second, of all models together")
    options = parser.parse_args()
    source = weights(ROOT / ".bench")[0]
    folder = ROOT / ".bench" / "nine"
    folder.mkdir(exist_ok=True)
    files = [folder / f"m{number}.gguf" for number in range(MODELS)]
    for file in files:
        if not file.exists():
            os.link(source, file)
    shares = [1 / (rank + 1) for rank in range(MODELS)]
    rates = [options.rate * share / sum(shares) for share in shares]
    trace = poisson(rates, options.seconds, SEED, words=[0] * MODELS)
    budget = round(1.5 * asyncio.run(bytes_of_one(files)))
    for name, routes in (("a cluster", True), ("two choices", False)):
        outcome = asyncio.run(play(trace, files, budget, routes=routes, real=options.real))
        print(shown(name, outcome, options.seconds), flush=True)


if __name__ == "__main__":
    main()
