"""A server alone or as a cluster. ``timed.py alone|cluster PORT WEIGHTS scripted|real``.

Unless it is real, its engine computes nothing: the text of each token is the time at which it was made, so that a
client can tell how long it was on the way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
import warnings
from pathlib import Path

import uvloop
from bench.servers.http_only import ScriptedEngine

from modelyard.api.app import create_app
from modelyard.config import Config, validate_config
from modelyard.inprocess.http_server.server import HttpServer
from modelyard.yard.yard import Yard


class TimedEngine(ScriptedEngine):
    """An engine that makes 20 tokens a second for each sequence, and those of one token at once."""

    step_s = 0.05

    def text(self) -> str:
        """Return the present time in nanoseconds."""
        return f" {time.monotonic_ns()}"


def tables(weights: str) -> dict[str, object]:
    """Return the configuration of both."""
    return {"runtime": {"max_seqs": 128, "prefix_cache_n": 0}, "models": [{"model_id": weights, "alias": "0"}]}


async def alone(port: int, weights: str, *, is_real: bool) -> None:
    """Serve as ``modelyard serve`` does, until killed."""
    config = validate_config(tables(weights))
    yard = Yard(config, auto_host="process") if is_real else Yard(config, TimedEngine)
    await yard.start()
    listener = socket.create_server(("127.0.0.1", port))
    server = HttpServer(create_app(yard, []), listener, config.server)
    await server.start()
    await server.serving


def cluster(port: int, weights: str, *, is_real: bool) -> None:
    """Serve as ``modelyard deploy`` does, on a Ray cluster of this machine, until the input ends."""
    # Ray gives way to all other processes, and the server that it is compared with does not.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (its name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelyard.cluster.application import Node, deploy, settings_of, shut_down

    class TimedNode(Node):
        def make_yard(self, config: Config) -> Yard:
            return Yard(config, TimedEngine)

    try:
        settings = settings_of(tables(weights), "bench", Path("/"))
        deploy(settings, None, "127.0.0.1", port, Node if is_real else TimedNode)
        sys.stdin.read()
    finally:
        shut_down()


if __name__ == "__main__":
    kind, port, weights, engine = sys.argv[1:]
    if kind == "cluster":
        cluster(int(port), weights, is_real=engine == "real")
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(alone(int(port), weights, is_real=engine == "real"))
