"""A front and nodes over TCP, with scripted engines: what goes where, and what becomes of it when nodes go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.cluster.front_nodes import FrontNodes
from modelyard.cluster.node_report import NodeReport
from modelyard.cluster.wire import WireClosed, accept, connect
from modelyard.config import Config, validate_config
from modelyard.errors import ContextLengthExceeded, InvalidRequest, ModelyardError, NodeNotFound, RemoteUnavailable
from modelyard.protocol.prompts import Chat, Text
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.requests.requests import Request, TokenizeRequest, WaitOptions
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.yard import Yard
from support.cluster_stage import SECRET, WAIT_S, Stage, cluster, until
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines


@pytest.fixture
def answering() -> Iterator[list[ScriptedEngines]]:
    """Engines of three nodes, which answer with the name of their node."""
    engines = [ScriptedEngines(answer=lambda _, n=number: [f"n{n}", " says hi"]) for number in range(3)]
    yield engines
    assert all(each.end() for each in engines)


@pytest.fixture
def silent() -> Iterator[list[ScriptedEngines]]:
    """Engines of three nodes that answer as the test says."""
    engines = [ScriptedEngines() for _ in range(3)]
    yield engines
    assert all(each.end() for each in engines)


def config(folder: Path, *names: str) -> Config:
    models = []
    for name in names or ("m",):
        write(folder / f"{name}.gguf", tiny_model())
        models.append({"model_id": f"{name}.gguf", "alias": name, "load": "on-demand"})
    return validate_config({"models": models}, source="test", base=folder)


def yards(engines: list[ScriptedEngines]) -> object:
    return lambda config, number: Yard(config, make_engine=engines[number].make_handle)


async def test_a_request_is_answered_by_a_node_and_the_next_one_by_the_same(
    tmp_path: Path, answering: list[ScriptedEngines]
) -> None:
    async with cluster(config(tmp_path), 3, yards(answering)) as stage:
        first = await stage.text()
        await until(lambda: len(holders(stage, "m")) == 1)
        assert [await stage.text() for _ in range(3)] == [first] * 3
        assert first == f"{holders(stage, 'm')[0]} says hi"


async def test_what_nodes_report_is_the_status_of_the_model(tmp_path: Path, answering: list[ScriptedEngines]) -> None:
    async with cluster(config(tmp_path), 2, yards(answering)) as stage:
        before = stage.front.model("m")
        assert (before.status, before.resident_bytes) == ("unloaded", 0)
        await stage.text()
        await until(lambda: len(holders(stage, "m")) == 1)
        model = stage.front.model("m")
        assert model.nodes is not None
        assert [name for name, node in model.nodes.items() if node.is_resident] == holders(stage, "m")
        assert model.status == "loaded"
        assert model.resident_bytes > 0
        assert stage.front.health.is_ready("m")


async def test_a_refused_prompt_is_refused_in_the_nodes_words_and_not_tried_elsewhere(
    tmp_path: Path, answering: list[ScriptedEngines]
) -> None:
    def refuse(submit: Submit) -> list[str]:
        raise ContextLengthExceeded("m", 5000, 2048)

    refusing = [ScriptedEngines(answer=refuse) for _ in range(2)]
    async with cluster(config(tmp_path), 2, yards(refusing)) as stage:
        with pytest.raises(ContextLengthExceeded):
            await stage.text()
        assert sum(len(each.of("m")) for each in refusing) == 1
    assert all(each.end() for each in refusing)


async def test_a_node_that_drains_ends_what_it_has_and_refuses_the_rest(
    tmp_path: Path, silent: list[ScriptedEngines]
) -> None:
    async with (
        cluster(config(tmp_path), 2, yards(silent)) as stage,
        asyncio.timeout(WAIT_S),
        stage.front.generate(Request(Text("Hi"))) as stream,
    ):
        node = next(n for n in stage.nodes if n.open_requests)
        engine = silent[stage.nodes.index(node)].started("m")
        draining = asyncio.create_task(node.drain(WAIT_S))
        await until(lambda: any(report.is_draining for report in stage.front_nodes.reports))
        other = asyncio.create_task(stage.text())
        there = silent[1 - stage.nodes.index(node)]
        elsewhere = await asyncio.to_thread(there.started, "m")
        await asyncio.to_thread(elsewhere.heard, Submit)
        elsewhere.say("elsewhere")
        elsewhere.finish()
        assert await other == "elsewhere"
        engine.say("to the end")
        engine.finish()
        assert await stream.text() == "to the end"
        await draining


async def test_a_request_that_is_left_ends_on_its_node(tmp_path: Path, silent: list[ScriptedEngines]) -> None:
    async with cluster(config(tmp_path), 1, yards(silent)) as stage:
        async with asyncio.timeout(WAIT_S), stage.front.generate(Request(Text("Hi"))):
            engine = silent[0].started("m")
        await asyncio.to_thread(engine.heard, Cancel)
        await until(lambda: not stage.nodes[0].open_requests)


async def test_a_request_that_has_not_begun_begins_elsewhere_when_its_node_is_lost(
    tmp_path: Path, answering: list[ScriptedEngines]
) -> None:
    loading = [ScriptedEngines(loads=False), answering[1]]
    async with cluster(config(tmp_path), 2, yards(loading)) as stage:
        stage.front_nodes.table.set_homes({"m": ("n0",)})
        await stage.front_nodes.ask("n1", "unload", "m", "drain")
        # Sent to the node that never loads it, by force of the other one's refusal.
        stage.front_nodes.table.note_refused("n1", "m", asyncio.get_running_loop().time() + 1e6)
        asked = asyncio.create_task(stage.text())
        await until(lambda: bool(stage.nodes[0].open_requests or asked.done()))
        await stage.nodes[0].close()
        assert await asked == "n1 says hi"
    assert loading[0].end()


async def test_without_any_node_requests_are_refused_at_once(tmp_path: Path) -> None:
    async with cluster(config(tmp_path), 0) as stage:
        with pytest.raises(RemoteUnavailable, match="no node of the cluster is connected"):
            await stage.text()
        assert stage.front.health.unready("m") == "no node of the cluster is connected"


async def test_requests_wait_for_the_first_node_with_a_reason(tmp_path: Path, answering: list[ScriptedEngines]) -> None:
    waits: list[bool] = []
    async with cluster(config(tmp_path), 1, yards(answering), connected=False, on_waiting=waits.append) as stage:
        stage.front_nodes.start_s = WAIT_S
        assert stage.front.health.unready("m") == "no node of the cluster is connected; a request starts one"
        asked = [asyncio.create_task(stage.text()) for _ in range(2)]
        await until(lambda: "2 requests wait for it" in stage.front.health.unready("m"))
        assert waits == [True]
        left = asyncio.create_task(stage.text())
        await until(lambda: "3 requests wait for it" in stage.front.health.unready("m"))
        left.cancel()
        await until(lambda: "2 requests wait for it" in stage.front.health.unready("m"))
        stage.front_nodes.follow(stage.addresses)
        assert await asyncio.gather(*asked) == ["n0 says hi"] * 2
    assert waits == [True, False]


async def test_a_request_waits_no_longer_than_it_may_for_a_node(tmp_path: Path) -> None:
    async with cluster(config(tmp_path), 0) as stage:
        stage.front_nodes.start_s = 0.05
        with pytest.raises(RemoteUnavailable, match="no node of the cluster is connected within"):
            await stage.text()
        stage.front_nodes.start_s = WAIT_S
        with pytest.raises(RemoteUnavailable, match="no node of the cluster is connected within"):
            await stage.text(wait_options=WaitOptions(wait_s=0.05))


async def test_a_request_whose_only_node_is_lost_goes_on_at_the_next_one(
    tmp_path: Path, answering: list[ScriptedEngines]
) -> None:
    loading = [ScriptedEngines(loads=False), answering[1]]
    async with cluster(config(tmp_path), 2, yards(loading), connected=False) as stage:
        stage.front_nodes.start_s = WAIT_S
        first, second = stage.addresses.items()
        stage.front_nodes.follow(dict([first]))
        asked = asyncio.create_task(stage.text())
        await until(lambda: bool(stage.nodes[0].open_requests))
        await stage.nodes[0].close()
        await until(lambda: "1 request waits for it" in stage.front.health.unready("m"))
        stage.front_nodes.follow(dict([second]))
        assert await asked == "n1 says hi"
    assert loading[0].end()


async def test_a_node_counts_answers_from_their_first_step_and_first_tokens_without_loads(
    tmp_path: Path, answering: list[ScriptedEngines]
) -> None:
    async with cluster(config(tmp_path), 1, yards(answering)) as stage:
        node, now = stage.nodes[0], time.monotonic()
        times = RequestTimings(arrived=now - 13, granted=now - 3, load_s=8, started=now - 2, first=now - 1)
        node.note_end(times, now)
        assert node.service_s == pytest.approx(1.1)
        assert node.load().first_token_s == pytest.approx(4.0)
        # Of one that no engine had nothing is known.
        node.note_end(RequestTimings(arrived=now - 100), now)
        assert node.service_s == pytest.approx(1.1)


async def test_tokens_are_counted_by_a_node(tmp_path: Path, answering: list[ScriptedEngines]) -> None:
    async with cluster(config(tmp_path), 1, yards(answering)) as stage, asyncio.timeout(WAIT_S):
        chat = Chat([{"role": "user", "content": "Hi there"}])
        assert (await stage.front.tokenize(TokenizeRequest(chat))).tokens == (0, 1)


async def test_nodes_load_and_unload_models_when_they_are_asked(
    tmp_path: Path, answering: list[ScriptedEngines]
) -> None:
    async with cluster(config(tmp_path), 2, yards(answering)) as stage:
        await stage.front_nodes.ask("n1", "reload", "m")
        assert holders(stage, "m") == ["n1"]
        assert await stage.text() == "n1 says hi"
        await stage.front_nodes.ask("n1", "unload", "m", "drain")
        assert holders(stage, "m") == []
        with pytest.raises(NodeNotFound, match="Connected: n0, n1"):
            await stage.front_nodes.ask("gone", "reload", "m")
        with pytest.raises(InvalidRequest):
            await stage.front_nodes.ask("n0", "polish", "m")
        with pytest.raises(ModelyardError, match="other"):
            await stage.front_nodes.ask("n0", "reload", "other")


async def test_two_that_ask_a_node_at_once_are_both_answered(tmp_path: Path, answering: list[ScriptedEngines]) -> None:
    async with cluster(config(tmp_path, "a", "b"), 1, yards(answering)) as stage, asyncio.timeout(WAIT_S):
        refused, loaded = await asyncio.gather(
            stage.front_nodes.ask("n0", "polish", "a"),
            stage.front_nodes.ask("n0", "reload", "b"),
            return_exceptions=True,
        )
    assert isinstance(refused, InvalidRequest)
    assert loaded is None


async def test_a_node_that_says_nothing_any_more_is_lost() -> None:
    ended = asyncio.Event()

    async def report_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await accept(reader, writer, SECRET)
        wire.send(("report", NodeReport("mute").fields()))
        await ended.wait()
        await wire.close()

    server = await asyncio.start_server(report_once, "127.0.0.1", 0)
    nodes = FrontNodes(SECRET, lost_s=0.2)
    nodes.follow({"mute": server.sockets[0].getsockname()})
    assert await nodes.until_connected(1, WAIT_S)
    await until(lambda: not nodes.reports)
    ended.set()
    await nodes.close()
    server.close()


async def test_a_node_answers_nobody_who_does_not_know_the_secret(
    tmp_path: Path, answering: list[ScriptedEngines]
) -> None:
    async with cluster(config(tmp_path), 1, yards(answering)) as stage:
        wire = await connect(*stage.addresses["n0"], SECRET[::-1])
        with pytest.raises(WireClosed):
            await wire.receive()
        await wire.close()


def holders(stage: Stage, model: str) -> list[str]:
    return [
        report.node
        for report in stage.front_nodes.reports
        if model in report.models and report.models[model].is_resident
    ]
