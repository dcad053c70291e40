"""A server whose engine computes nothing, alone or as a cluster. ``timed.py alone|cluster PORT WEIGHTS``.

The text of each token is the time at which it was made, so that a client can tell how long it was on the way.
"""

from __future__ import annotations

import asyncio
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


async def alone(port: int, weights: str) -> None:
    """Serve as ``modelyard serve`` does, until killed."""
    config = validate_config(tables(weights))
    yard = Yard(config, TimedEngine)
    await yard.start()
    listener = socket.create_server(("127.0.0.1", port))
    server = HttpServer(create_app(yard, []), listener, config.server)
    await server.start()
    await server.serving


def cluster(port: int, weights: str) -> None:
    """Serve as ``modelyard deploy`` does, on a Ray cluster of this machine, until the input ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelyard.cluster.application import Node, deploy, settings_of, shut_down

    class TimedNode(Node):
        def make_yard(self, config: Config) -> Yard:
            return Yard(config, TimedEngine)

    try:
        deploy(settings_of(tables(weights), "bench", Path("/")), None, "127.0.0.1", port, TimedNode)
        sys.stdin.read()
    finally:
        shut_down()


if __name__ == "__main__":
    if sys.argv[1] == "cluster":
        cluster(int(sys.argv[2]), sys.argv[3])
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(alone(int(sys.argv[2]), sys.argv[3]))
