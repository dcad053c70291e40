"""What a running server finds about its machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from modelyard.api.server import doctor
from modelyard.api.server.doctor import ServerDoctor
from modelyard.config import AccessKey, Config, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.doctor.checks import Facts
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_app import scripted_app
from support.scripted_engines import ScriptedEngines
from unit.doctor.test_checks import WELL

KEYS = [
    AccessKey("reader", digest_of("reads"), None, frozenset({"inference", "read"})),
    AccessKey("operator", digest_of("operates"), None, frozenset({"admin"})),
]


@pytest_asyncio.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    write(tmp_path / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "m.gguf", "alias": "m"}]}, source="test", base=tmp_path)
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    yard = Yard(config, engines.make_handle)
    await yard.start()
    yield yard
    await yard.close()
    assert engines.end()


class Collecting:
    """Collects facts when a test allows it.

    Attributes:
        count: how often it began.
    """

    def __init__(self, facts: Facts = WELL) -> None:
        self.count, self.facts, self.goes_on = 0, facts, threading.Event()
        self.goes_on.set()

    def __call__(self, _config: Config) -> Facts:
        self.count += 1
        assert self.goes_on.wait(20)
        return self.facts


async def test_calls_at_the_same_time_share_an_examination_also_where_one_leaves(yard: Yard) -> None:
    collect = Collecting()
    collect.goes_on.clear()
    server = ServerDoctor(collect)
    leaves, stays = (asyncio.create_task(server.examine(yard)) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    collect.goes_on.set()
    found = await stays
    assert leaves.cancelled()
    assert (await server.examine(yard)) is found
    assert collect.count == 1


async def test_what_was_found_is_kept_for_a_while(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "KEPT_S", 0.0)
    collect = Collecting()
    server = ServerDoctor(collect)
    await server.examine(yard)
    await server.examine(yard)
    assert collect.count == 2


async def test_an_examination_that_failed_is_tried_again(yard: Yard) -> None:
    failing = iter([OSError("no such folder")])

    def collect(_config: Config) -> Facts:
        for error in failing:
            raise error
        return WELL

    server = ServerDoctor(collect)
    with pytest.raises(OSError, match="no such folder"):
        await server.examine(yard)
    assert (await server.examine(yard)).findings


async def test_what_the_server_itself_takes_is_no_problem(yard: Yard) -> None:
    # Its models have taken the memory, and it listens at its port.
    full = replace(WELL, available_bytes=0, address_problem="address already in use")
    used = yard.monitor.metrics().used_bytes
    assert used > 0
    found = {each.name: each for each in (await ServerDoctor(Collecting(full)).examine(yard)).findings}
    assert "port" not in found
    assert found["memory"].facts["available_bytes"] == used


async def test_only_keys_that_administer_see_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ServerDoctor", partial(ServerDoctor, Collecting()))
    async with scripted_app(tmp_path, lambda _: "", keys=KEYS) as client:
        assert (await _asked(client, "reads")).status_code == 403
        report = (await _asked(client, "operates")).json()
    assert (report["object"], report["usable"]) == ("doctor", True)
    names = [finding["name"] for finding in report["findings"]]
    assert names[:2] == ["versions", "llama_cpp"]


async def _asked(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.get("/v1/doctor", headers={"authorization": f"Bearer {key}"})
