"""GET /metrics of a cluster: the metrics of each node with its name, each metric once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from modelyard.cluster import front_operations
from modelyard.config import Config, validate_config
from modelyard.yard.yard import Yard
from support.cluster_stage import Stage, cluster, over_http
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines


@pytest.fixture
def engines() -> Iterator[list[ScriptedEngines]]:
    """Engines of two nodes."""
    made = [ScriptedEngines(answer=lambda _: ["Hi"]) for _ in range(2)]
    yield made
    assert all(each.end() for each in made)


def config(folder: Path) -> Config:
    write(folder / "m.gguf", tiny_model())
    models = [{"model_id": "m.gguf", "alias": "m", "load": "on-demand"}]
    return validate_config({"models": models}, source="test", base=folder)


def samples(text: str, name: str) -> list[Sample]:
    return [
        sample for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == name
    ]


async def scraped(stage: Stage, accept: str = "text/plain") -> str:
    async with over_http(stage) as client:
        answer = await client.get("/metrics", headers={"accept": accept})
        assert answer.status_code == 200
        return answer.text


async def test_each_node_has_its_metrics_and_the_front_does_not_count_them_again(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    async with cluster(
        config(tmp_path), 2, lambda config, number: Yard(config, make_engine=engines[number].make_handle)
    ) as stage:
        await stage.front_nodes.ask("n1", "reload", "m")
        await stage.text()
        text = await scraped(stage)
    loaded = {sample.labels["node"]: sample.value for sample in samples(text, "modelyard_model_loaded")}
    assert loaded == {"n0": 0, "n1": 1}
    finished = samples(text, "modelyard_requests_finished_total")
    assert sum(sample.value for sample in finished) == 1
    assert {sample.labels.get("node") for sample in samples(text, "modelyard_memory_budget_bytes")} == {"n0", "n1"}
    assert {sample.labels.get("node") for sample in samples(text, "process_cpu_seconds_total")} == {None, "n0", "n1"}
    assert {sample.labels["state"]: sample.value for sample in samples(text, "modelyard_nodes")} == {
        "up": 2,
        "draining": 0,
        "silent": 0,
    }


async def test_each_metric_is_described_once_in_both_formats(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    async with cluster(
        config(tmp_path), 2, lambda config, number: Yard(config, make_engine=engines[number].make_handle)
    ) as stage:
        text = await scraped(stage)
        assert list(open_metrics(await scraped(stage, "application/openmetrics-text")))
    described = Counter(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(described.values()) == {1}
    assert list(text_string_to_metric_families(text))


async def test_a_node_that_does_not_answer_is_left_out_and_counted(
    tmp_path: Path, engines: list[ScriptedEngines], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_operations, "METRICS_S", 0.05)
    ended = asyncio.Event()

    async def never(*_: object) -> None:
        await ended.wait()

    async with cluster(
        config(tmp_path), 2, lambda config, number: Yard(config, make_engine=engines[number].make_handle)
    ) as stage:
        ask = stage.front_nodes.ask
        monkeypatch.setattr(stage.front_nodes, "ask", lambda node, *args: never() if node == "n0" else ask(node, *args))
        text = await scraped(stage)
        ended.set()
    assert {sample.labels["node"] for sample in samples(text, "modelyard_model_loaded")} == {"n1"}
    assert [sample.value for sample in samples(text, "modelyard_nodes_missing")] == [1]
