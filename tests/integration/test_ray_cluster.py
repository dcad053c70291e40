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

NODES, TOKENS = 2, 48
WAIT_S = 120.0
OBJECTS = 80 << 20
# Continued with tokens that nothing else comes near, so that the kernels that compute them do not matter: all other
# logits are lower by 1.6 and more.
CYCLES = (
    "blue three bird noon up moon",
    "three bird noon up moon red",
    "two dog night right",
    "blue three bird noon",
    "three bird noon up",
    "green two dog night right sun",
    "dog night right sun rain blue",
    "dog night right sun rain",
    "blue three bird noon up",
    "red one cat day left",
    "green two dog night right",
    "red one cat day left down",
    "cat day left down",
    "two dog night right sun rain",
    "dog night right sun",
    "two dog night right sun",
)
PROMPTS = tuple(" ".join([cycle] * 4) for cycle in CYCLES)


class Deployed:
    """The cluster, and the application that runs on it."""

    def __init__(self, cluster: Cluster, model: Path, port: int) -> None:
        self.cluster, self._model, self._port = cluster, model, port
        self.nodes = [cluster.add_node(num_cpus=1, object_store_memory=OBJECTS) for _ in range(NODES)]
        self.deploy()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S)

    def deploy(
        self, system: str = "You are brief.", nodes: int = NODES, fewest: int | None = None, drain_s: float = 5.0
    ) -> None:
        toml = f"""
            [runtime]
            trial = false
            isolation = "thread"
            [memory]
            budget = "1GiB"
            [cluster]
            min_nodes = {nodes if fewest is None else fewest}
            max_nodes = {nodes}
            drain_seconds = {drain_s}
            idle_seconds = 10
            replicas = {{ smol = {nodes} }}
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

    def until_busy(self, streams: int) -> str:
        """The name of a node, once it computes so many streams."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            for node in self.reported():
                if node["models"]["smol"]["running"] >= streams:
                    return str(node["id"])
        raise AssertionError("No node became busy.")

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


@pytest.fixture(scope="module")
def undisturbed(deployed: Deployed) -> list[str]:
    """What is said while nothing happens to the cluster."""
    deployed.until(NODES)
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        return list(pool.map(deployed.complete, PROMPTS))


def test_a_chat_is_answered_and_the_nodes_are_listed(deployed: Deployed) -> None:
    nodes = deployed.until(NODES)
    assert {node["status"] for node in nodes} == {"up"}
    body = {"model": "smol", "messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 8}
    answer = deployed.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert deployed.http.get("/v1/models").json()["data"][0]["nodes"]


def test_a_web_page_under_another_name_is_refused(deployed: Deployed) -> None:
    assert deployed.http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403


def test_a_changed_file_is_taken_over_under_streams(deployed: Deployed, undisturbed: list[str]) -> None:
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        running = [pool.submit(deployed.complete, prompt) for prompt in PROMPTS]
        deployed.deploy(system="You are a pirate.")
        assert [each.result(WAIT_S) for each in running] == undisturbed
    assert len(deployed.reported()) == NODES


def test_streams_survive_the_loss_of_a_node(deployed: Deployed, undisturbed: list[str]) -> None:
    deployed.until(NODES)
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        running = [pool.submit(deployed.complete, prompt) for prompt in PROMPTS]
        busy = deployed.until_busy(4)
        lost = next(node for node in deployed.nodes if node.node_id.startswith(busy))
        deployed.nodes.remove(lost)
        deployed.cluster.remove_node(lost, allow_graceful=False)
        assert [each.result(WAIT_S) for each in running] == undisturbed
    deployed.nodes.append(deployed.cluster.add_node(num_cpus=1, object_store_memory=OBJECTS))
    deployed.until(NODES)


def test_nodes_leave_and_join_under_streams(deployed: Deployed, undisturbed: list[str]) -> None:
    deployed.until(NODES)
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        running = [pool.submit(deployed.complete, prompt) for prompt in PROMPTS]
        deployed.until_busy(4)
        # Shorter than the streams: those of the node that leaves go on at the other one.
        deployed.deploy(nodes=1, drain_s=0.5)
        assert [each.result(WAIT_S) for each in running] == undisturbed
        deployed.until(1)
        running = [pool.submit(deployed.complete, prompt) for prompt in PROMPTS]
        deployed.deploy(nodes=NODES)
        assert [each.result(WAIT_S) for each in running] == undisturbed
    deployed.until(NODES)


def test_without_requests_there_is_no_node_and_the_next_request_starts_one(
    deployed: Deployed, undisturbed: list[str]
) -> None:
    deployed.deploy(nodes=1, fewest=0)
    deployed.until(0)
    status = deployed.http.get("/health", params={"model": "smol"}).json()
    assert status["reason"] == "no node of the cluster is connected; a request starts one"
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        assert list(pool.map(deployed.complete, PROMPTS)) == undisturbed
    deployed.until(1)
