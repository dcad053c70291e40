"""``modelyard deploy`` on a Ray cluster of a head and two nodes on this machine."""

from __future__ import annotations

import time
import tomllib
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.odd_server import free_port

with warnings.catch_warnings():
    # Ray's own, of pydantic.
    warnings.simplefilter("ignore")
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from modelyard.cluster.application import deploy, settings_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

NODES, STREAMS, TOKENS = 2, 3, 48
WAIT_S = 120.0
OBJECTS = 80 << 20
# Continued with tokens that nothing else comes near, so that the kernels that compute them do not matter.
COUNTED = (
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,",
    "a b c d e f g a b c d e f g a b c d e f g a b c",
    "10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110,",
)


class Deployed:
    """The cluster, and the application that runs on it."""

    def __init__(self, cluster: Cluster, model: Path, port: int) -> None:
        self.cluster, self._model, self._port = cluster, model, port
        self.nodes = [cluster.add_node(num_cpus=1, object_store_memory=OBJECTS) for _ in range(NODES)]
        self.deploy()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S)

    def deploy(self, system: str = "You are brief.") -> None:
        toml = f"""
            [runtime]
            trial = false
            isolation = "thread"
            [memory]
            budget = "1GiB"
            [cluster]
            min_nodes = {NODES}
            max_nodes = {NODES}
            drain_seconds = 5
            replicas = {{ smol = {NODES} }}
            [[models]]
            model_id = "{self._model}"
            alias = "smol"
            system = "{system}"
            [models.device]
            max_seq_len = 1024
        """
        settings = settings_of(tomllib.loads(toml), "models.toml", Path("/"))
        deploy(settings, self.cluster.address, "127.0.0.1", self._port)

    def reported(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = self.http.get("/v1/nodes").json()["data"]
        return nodes

    def until(self, count: int) -> list[dict[str, Any]]:
        """The nodes, once so many of them are connected and have the model."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            nodes = self.reported()
            if len(nodes) == count and all(node["models"].get("smol", {}).get("status") == "loaded" for node in nodes):
                return nodes
            time.sleep(0.2)
        raise AssertionError(f"There are not {count} nodes with the model: {self.reported()}")

    def complete(self, prompt: str, tokens: int = TOKENS) -> str:
        """What is streamed to go on with ``prompt``."""
        body = {"model": "smol", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
        said, lines = "", []
        with self.http.stream("POST", "/v1/completions", json={**body, "ignore_eos": True}) as stream:
            for line in stream.iter_lines():
                lines.append(line)
                if line.startswith("data: {"):
                    event = httpx.Response(200, content=line[6:]).json()
                    assert "error" not in event, event
                    said += event["choices"][0]["text"] if event["choices"] else ""
        assert "data: [DONE]" in lines
        return said


@pytest.fixture(scope="module")
def deployed(weights: dict[str, Path]) -> Iterator[Deployed]:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": OBJECTS, "include_dashboard": False}
    )
    try:
        with free_port() as port:
            pass
        made = Deployed(cluster, weights["smollm2"], port)
        yield made
        made.http.close()
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def test_a_chat_is_answered_and_the_nodes_are_listed(deployed: Deployed) -> None:
    nodes = deployed.until(NODES)
    assert {node["status"] for node in nodes} == {"up"}
    body = {"model": "smol", "messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 8}
    answer = deployed.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert deployed.http.get("/v1/models").json()["data"][0]["nodes"]


def test_a_changed_file_is_taken_over_under_streams(deployed: Deployed) -> None:
    with ThreadPoolExecutor(STREAMS) as pool:
        running = [pool.submit(deployed.complete, prompt, 4 * TOKENS) for prompt in COUNTED]
        deployed.deploy(system="You are a pirate.")
        assert all(each.result(WAIT_S) for each in running)
    assert len(deployed.reported()) == NODES


def test_streams_survive_the_loss_of_a_node(deployed: Deployed) -> None:
    deployed.until(NODES)
    undisturbed = [deployed.complete(prompt) for prompt in COUNTED]
    with ThreadPoolExecutor(STREAMS) as pool:
        running = [pool.submit(deployed.complete, prompt) for prompt in COUNTED]
        busy: list[str] = []
        end = time.monotonic() + WAIT_S
        while not busy and time.monotonic() < end and not all(each.done() for each in running):
            busy = [node["id"] for node in deployed.reported() if node["models"]["smol"]["running"]]
        assert busy
        lost = next(node for node in deployed.nodes if node.node_id.startswith(busy[0]))
        deployed.nodes.remove(lost)
        deployed.cluster.remove_node(lost, allow_graceful=False)
        assert [each.result(WAIT_S) for each in running] == undisturbed
    deployed.nodes.append(deployed.cluster.add_node(num_cpus=1, object_store_memory=OBJECTS))
    deployed.until(NODES)
