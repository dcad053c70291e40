"""LoRA adapters on a cluster: where requests for them go, and how nodes get those that are loaded while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.cluster.front_models import node_config
from modelyard.cluster.node_server import NodeServer
from modelyard.cluster.node_tasks import adapter_fields
from modelyard.config import Adapter, Config, validate_config
from modelyard.errors import ConfigError
from modelyard.yard.yard import Yard
from support.adapters import write_adapter, write_drawn_model
from support.cluster_stage import SECRET, WAIT_S, Stage, cluster, over_http, until
from support.scripted_engines import ScriptedEngines


@pytest.fixture
def engines() -> Iterator[list[ScriptedEngines]]:
    """Engines of three nodes, which answer with the adapters of the request."""
    made = [
        ScriptedEngines(answer=lambda submit, n=number: [f"n{n}:", *(use.name for use in submit.adapters)])
        for number in range(3)
    ]
    yield made
    assert all(each.end() for each in made)


def config(folder: Path, **model: Any) -> Config:
    base = write_drawn_model(folder / "m.gguf")
    for name in ("sql", "law"):
        write_adapter(folder / f"{name}.gguf", base)
    models = [{"model_id": "m.gguf", "alias": "m", "load": "on-demand", **model}]
    return validate_config({"models": models}, source="test", base=folder)


@asynccontextmanager
async def front(config: Config, engines: list[ScriptedEngines]) -> AsyncIterator[tuple[Stage, httpx.AsyncClient]]:
    """The HTTP surface of two nodes."""
    async with (
        cluster(config, 2, lambda config, number: Yard(config, make_engine=engines[number].make_handle)) as stage,
        over_http(stage) as client,
    ):
        yield stage, client


async def load(client: httpx.AsyncClient, path: Path, name: str = "sql") -> httpx.Response:
    return await client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)})


async def text(client: httpx.AsyncClient, model: str) -> str:
    answer = await client.post("/v1/completions", json={"model": model, "prompt": "Hi"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"]).partition(":")[2]


def adapters(stage: Stage) -> list[list[str]]:
    """The adapters of each node."""
    return [[adapter.name for adapter in node.yard.configured("m").adapters] for node in stage.nodes]


async def test_a_configured_adapter_is_a_model_of_the_cluster(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    configured = config(tmp_path, adapters=[{"name": "sql", "path": "sql.gguf"}])
    async with front(configured, engines) as (_, client):
        listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert listed == ["m", "m::sql"]
        assert (await text(client, "m::sql"), await text(client, "m")) == ("sql", "")


async def test_an_adapter_is_loaded_and_unloaded_on_all_nodes(tmp_path: Path, engines: list[ScriptedEngines]) -> None:
    async with front(config(tmp_path), engines) as (stage, client):
        assert (await load(client, tmp_path / "sql.gguf")).status_code == 200
        assert adapters(stage) == [["sql"], ["sql"]]
        assert await text(client, "m::sql") == "sql"
        again = await load(client, tmp_path / "sql.gguf")
        assert (again.status_code, "already" in again.text) == (400, True)
        assert (await client.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})).status_code == 200
        assert adapters(stage) == [[], []]
        gone = await client.post("/v1/completions", json={"model": "m::sql", "prompt": "Hi"})
        assert gone.status_code == 404


async def test_an_adapter_that_one_node_cannot_load_is_loaded_on_none(
    tmp_path: Path, engines: list[ScriptedEngines], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_change: object) -> None:
        raise ConfigError("", [f"{tmp_path / 'law.gguf'} is for another model."])

    async with front(config(tmp_path), engines) as (stage, client):
        await load(client, tmp_path / "sql.gguf")
        # It has another file under this path, for another model.
        monkeypatch.setattr(stage.nodes[1].yard, "revise", refuse)
        refused = await load(client, tmp_path / "law.gguf", "law")
        assert refused.status_code == 400
        assert refused.json()["error"]["message"].startswith("On the node n1: law.gguf")
        assert str(tmp_path) not in refused.text
        assert adapters(stage) == [["sql"], ["sql"]]
        assert [adapter.name for adapter in stage.front.configured("m").adapters] == ["sql"]


async def test_an_adapter_that_the_front_cannot_serve_is_loaded_on_no_node(
    tmp_path: Path, engines: list[ScriptedEngines], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_change: object) -> None:
        raise ConfigError("", ["Another server has a model of that name."])

    async with front(config(tmp_path), engines) as (stage, client):
        await load(client, tmp_path / "sql.gguf")
        monkeypatch.setattr(stage.front, "revise", refuse)
        assert (await load(client, tmp_path / "law.gguf", "law")).status_code == 400
        assert adapters(stage) == [["sql"], ["sql"]]


async def test_adapters_of_the_configuration_stay_as_they_are_beside_one_that_is_loaded(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    configured = config(tmp_path, adapters=[{"name": "sql", "path": "sql.gguf", "scale": 0.5, "applied": True}])
    async with front(configured, engines) as (stage, client):
        (before,) = configured.models[0].adapters
        assert (await load(client, tmp_path / "law.gguf", "law")).status_code == 200
        assert [node.yard.configured("m").adapters[0] for node in stage.nodes] == [before] * 2


def test_every_setting_of_an_adapter_reaches_a_node(tmp_path: Path) -> None:
    adapter = Adapter(name="kind", path=tmp_path / "kind.gguf", scale=0.5, applied=True, layers=(2, 5), alias="k")
    assert Adapter.model_validate_json(adapter_fields(adapter)) == adapter


async def test_a_node_that_joins_gets_the_adapters_and_until_then_others_are_asked(
    tmp_path: Path, engines: list[ScriptedEngines]
) -> None:
    configured = config(tmp_path)
    async with front(configured, engines) as (stage, client):
        await load(client, tmp_path / "sql.gguf")
        late = NodeServer(Yard(node_config(configured), make_engine=engines[2].make_handle), "n2", SECRET)
        await late.yard.start()
        stage.nodes.append(late)
        stage.front_nodes.follow({"n2": ("127.0.0.1", await late.start("127.0.0.1"))})
        await stage.front_nodes.until_connected(3, WAIT_S)
        await until(lambda: adapters(stage) == [["sql"]] * 3)
        # One that has lost it refuses what asks for it, and another one answers.
        stage.nodes[2].yard.directory.replace_config(node_config(configured))
        await stage.front_nodes.ask("n2", "reload", "m")
        assert await text(client, "m::sql") == "sql"
