"""What the front of a cluster asks its nodes for: loads, unloads and plans, on one node or where they cost least."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cluster.front_operations import SILENT_S, node_status
from modelyard.cluster.node_report import ModelReport, NodeReport
from modelyard.config import validate_config
from modelyard.yard.residency.state import LoadState
from modelyard.yard.yard import Yard
from support.cluster_stage import Stage, cluster, over_http, until
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines

Front = tuple[Stage, httpx.AsyncClient]


@pytest.fixture
def engines() -> Iterator[list[ScriptedEngines]]:
    """Engines of three nodes."""
    made = [ScriptedEngines(answer=lambda _: ["Hi"]) for _ in range(3)]
    yield made
    assert all(each.end() for each in made)


@asynccontextmanager
async def front(folder: Path, engines: list[ScriptedEngines], *names: str, **tables: Any) -> AsyncIterator[Front]:
    """The HTTP surface of two nodes with models."""
    for name in names:
        write(folder / f"{name}.gguf", tiny_model())
    models = [{"model_id": f"{name}.gguf", "alias": name, "load": "on-demand"} for name in names]
    config = validate_config({"models": models, **tables}, source="test", base=folder)
    async with (
        cluster(config, 2, lambda config, number: Yard(config, make_engine=engines[number].make_handle)) as stage,
        over_http(stage) as client,
    ):
        yield stage, client


async def ask(client: httpx.AsyncClient, what: str, model: str = "m", **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/models/{what}", json={"model_id": model, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def places(answer: dict[str, Any]) -> dict[str, str]:
    """The state of a model on each node of an answer."""
    return {name: node["status"] for name, node in answer["nodes"].items()}


async def test_a_model_is_loaded_and_unloaded_on_the_named_node_alone(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    async with front(tmp_path, engines, "m") as (_, client):
        loaded = await ask(client, "reload", node="n1")
        assert (loaded["status"], places(loaded)) == ("loaded", {"n1": "loaded"})
        assert (await ask(client, "status", node="n0"))["status"] == "unloaded"
        await ask(client, "reload", node="n0")
        assert places(await ask(client, "status")) == {"n0": "loaded", "n1": "loaded"}
        await ask(client, "unload", node="n1")
        assert places(await ask(client, "status")) == {"n0": "loaded", "n1": "unloaded"}


async def test_without_a_node_every_node_unloads_and_one_loads(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    async with front(tmp_path, engines, "m") as (_, client):
        await ask(client, "reload", node="n0")
        await ask(client, "reload", node="n1")
        unloaded = await ask(client, "unload")
        assert (unloaded["status"], places(unloaded)) == ("unloaded", {"n0": "unloaded", "n1": "unloaded"})
        await ask(client, "reload")
        first = places(await ask(client, "reload"))
        assert sorted(first.values()) == ["loaded", "unloaded"]


async def test_a_load_goes_to_the_next_node_where_the_first_one_cannot(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    async with front(tmp_path, engines, "m") as (stage, client):
        plan = await ask(client, "plan")
        first = next(node for node in stage.nodes if node.name == plan["node"])
        await first.yard.close()
        loaded = places(await ask(client, "reload"))
        assert [name for name, state in loaded.items() if state == "loaded"] == [
            node.name for node in stage.nodes if node is not first
        ]


async def test_the_plan_of_a_load_is_that_of_a_node(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    async with front(tmp_path, engines, "m") as (_, client):
        assert (await ask(client, "prepare", node="n1"))["status"] == "unloaded"
        plan = await ask(client, "plan", node="n1")
        assert (plan["node"], plan["outcome"]) == ("n1", "fits")
        assert plan["needed_bytes"] > 0
        await ask(client, "reload", node="n1")
        here = await ask(client, "plan")
        assert (here["node"], here["outcome"]) == ("n1", "loaded")


@pytest.mark.parametrize("what", ["unload", "reload", "prepare", "plan", "status"])
async def test_an_unknown_node_is_not_found_and_the_error_names_the_others(
    what: str, tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    async with front(tmp_path, engines, "m") as (_, client):
        answer = await client.post(f"/v1/models/{what}", json={"model_id": "m", "node": "gone"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "node_not_found", "node")
    assert "Connected: n0, n1" in error["message"]


async def test_other_dialects_unload_a_model_on_every_node(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    async with front(tmp_path, engines, "m") as (_, client):
        await ask(client, "reload", node="n1")
        answer = await client.post("/api/generate", json={"model": "m", "keep_alive": 0})
        assert answer.status_code == 200
        assert places(await ask(client, "status"))["n1"] == "unloaded"


async def test_the_nodes_and_the_server_show_where_models_are(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    async with front(tmp_path, engines, "m", "other") as (_, client):
        await ask(client, "reload", node="n1")
        nodes = {node["id"]: node for node in (await client.get("/v1/nodes")).json()["data"]}
        assert {node["status"] for node in nodes.values()} == {"up"}
        assert nodes["n1"]["models"]["m"]["status"] == "loaded"
        assert nodes["n1"]["memory"]["used_bytes"] > 0
        server = (await client.get("/v1/server")).json()
        states = {model["id"]: (model["state"], model["resident_bytes"] > 0) for model in server["models"]}
        assert states == {"m": ("loaded", True), "other": ("unloaded", False)}
        assert server["memory"]["budget_bytes"] == sum(node["memory"]["budget_bytes"] for node in nodes.values())
        listed = (await client.get("/v1/models")).json()["data"]
        assert places(listed[0])["n1"] == "loaded"


async def test_a_model_is_described_as_the_node_knows_it_that_has_loaded_it(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    async with front(tmp_path, engines, "m") as (stage, client):
        assert "context_length" not in (await client.get("/v1/models/m")).json()
        await ask(client, "reload", node="n1")
        await until(lambda: stage.front.model("m").context_length is not None)
        there, shown = stage.nodes[1].yard.model("m"), (await client.get("/v1/models/m")).json()
        assert (shown["context_length"], shown["kind"]) == (there.context_length, there.kind)
        assert shown["capabilities"]


async def test_the_command_line_shows_a_row_for_each_node_and_model(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    async with front(tmp_path, engines, "m", "other") as (_, client):
        for model in ("m", "other"):
            await ask(client, "reload", model, node="n1")
        arguments = ["status", "--address", str(client.base_url)]
        run = await asyncio.to_thread(CliRunner().invoke, app, arguments, env={"COLUMNS": "100"})
        as_json = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    assert run.exit_code == 0, run.output
    rows = [line.split() for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == ["Node", "n0", "n1", "n1"]
    assert [row[0] for row in rows if "m" in row or "other" in row] == ["n1", "n1"]
    assert [node["id"] for node in json.loads(as_json.stdout)["nodes"]] == ["n0", "n1"]


async def test_the_command_line_loads_plans_and_unloads_on_one_node(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    async with front(tmp_path, engines, "m") as (_, client):

        async def run(*arguments: str) -> str:
            command = [*arguments, "--address", str(client.base_url)]
            done = await asyncio.to_thread(CliRunner().invoke, app, command, env={"COLUMNS": "100"})
            assert done.exit_code == 0, done.output
            return done.stdout

        assert "m on n1 is loaded" in await run("load", "m", "--node", "n1")
        await run("load", "m", "--node", "n0")
        assert "That is on the node n0." in await run("plan", "m", "--node", "n0")
        assert await run("unload", "m", "--node", "n1") == "m on n1 is unloaded.\n"
        assert places(await ask(client, "status")) == {"n0": "loaded", "n1": "unloaded"}


async def test_on_one_machine_there_are_no_nodes(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    write(tmp_path / "m.gguf", tiny_model())
    models = [{"model_id": "m.gguf", "alias": "m", "load": "on-demand"}]
    config = validate_config({"models": models}, source="test", base=tmp_path)
    stage = Stage(Yard(config, make_engine=engines[0].make_handle), None)  # type: ignore[arg-type]
    await stage.front.start()
    async with over_http(stage) as client:
        assert (await client.get("/v1/nodes")).json()["data"] == []
        refused = await client.post("/v1/models/reload", json={"model_id": "m", "node": "n0"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "node_not_found")
        assert "nodes" not in await ask(client, "status")
    await stage.front.close()


def test_a_node_is_shown_as_silent_once_it_has_missed_several_reports() -> None:
    report = NodeReport("n", is_draining=True)
    assert node_status(report, SILENT_S).state == "draining"
    assert node_status(report, SILENT_S + 0.1).state == "silent"


def test_a_model_that_a_node_cannot_load_is_shown_with_the_reason() -> None:
    models = {
        "broken": ModelReport(1.0, is_resident=False, failure="it is broken", size_bytes=7),
        "loading": ModelReport(0.5, size_bytes=7),
    }
    shown = node_status(NodeReport("n", models=models), 0.0).models
    assert (shown["broken"].load_state, shown["broken"].failure) == (LoadState.FAILED, "it is broken")
    assert (shown["loading"].load_state, shown["loading"].resident_bytes) == (LoadState.LOADING, 7)
    assert shown["broken"].resident_bytes == 0
