"""Models that requests add and remove, with Ollama's endpoints and those of llama.cpp's router."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.formats.peft import PeftAdapter
from modelyard.hub import Downloads
from modelyard.yard.runtime import adapter_files
from support.adapters import write_adapter
from support.changing_server import ChangingServer, changing_server
from support.gguf_writer import tiny_model
from support.hub import LoopbackHub, serving_hub
from support.peft_adapters import write_peft

WAIT_S = 60.0
REPO = "org/tiny-GGUF"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with serving_hub() as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChangingServer]:
    async with changing_server(tmp_path, hub, monkeypatch) as serving:
        yield serving


def published(hub: LoopbackHub, **how: Any) -> None:
    hub.add(REPO, {"tiny-Q4_K_M.gguf": tiny_model() + bytes(3_000_000), "tiny-Q8_0.gguf": tiny_model()}, **how)


async def test_a_pulled_model_is_served_and_lives_on_in_a_file(server: ChangingServer, hub: LoopbackHub) -> None:
    published(hub)
    lines = await server.lines("/api/pull", {"model": f"hf.co/{REPO}:Q4_K_M"})
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1] == {"status": "success"}
    name = f"hf.co/{REPO}:Q4_K_M"
    assert server.ids == ["own", name]
    assert [model.id for model in server.reread().models] == ["own", name]
    (file,) = (server.file.parent / "models.d").glob("*.toml")
    assert "tiny-Q4_K_M.gguf" in file.read_text()
    again = await server.lines("/api/pull", {"model": name})
    assert again == [{"status": "success"}]


async def test_progress_names_the_bytes_and_an_answer_that_is_no_stream_is_its_last_line(
    server: ChangingServer, hub: LoopbackHub
) -> None:
    published(hub, bytes_per_s=3_000_000)
    lines = await server.lines("/api/pull", {"model": f"{REPO}:Q4_K_M"})
    bars = [line for line in lines if "digest" in line]
    assert bars
    assert all(0 <= line["completed"] <= line["total"] for line in bars)
    assert bars[0]["total"] > 3_000_000
    response = await server.client.post("/api/pull", json={"model": f"{REPO}:Q8_0", "stream": False})
    assert response.json() == {"status": "success"}


async def test_what_the_hub_does_not_have_is_refused_before_anything_happens(
    server: ChangingServer, hub: LoopbackHub
) -> None:
    published(hub)
    hub.add("org/closed", {"tiny-Q8_0.gguf": tiny_model()}, gated=True)
    for name, status in (("org/nothing", 404), ("llama3.2", 404), (f"{REPO}:q2_k", 400), ("/etc/passwd", 404)):
        response = await server.client.post("/api/pull", json={"model": name})
        assert response.status_code == status, response.text
    lines = await server.lines("/api/pull", {"model": "org/closed"})
    assert "gated" in lines[-1]["error"]
    assert server.ids == ["own"]
    assert not (server.file.parent / "models.d").exists()


async def test_a_full_disk_ends_a_pull_and_leaves_nothing(
    server: ChangingServer, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    lines = await server.lines("/api/pull", {"model": f"{REPO}:Q4_K_M"})
    assert "GB left" in lines[-1]["error"]
    assert server.ids == ["own"]
    assert hub.downloads() == []


async def test_a_client_that_leaves_gives_the_download_up_and_the_next_one_gets_it(
    server: ChangingServer, hub: LoopbackHub
) -> None:
    began, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_piece(_name: str, sent: int) -> None:
        if sent > 100_000 and not goes_on.is_set():
            loop.call_soon_threadsafe(began.set)

    published(hub, on_piece=on_piece, bytes_per_s=1_000_000)
    pulling = asyncio.create_task(server.client.post("/api/pull", json={"model": f"{REPO}:Q4_K_M"}))
    async with asyncio.timeout(WAIT_S):
        await began.wait()
        assert server.ids == ["own", f"{REPO}:Q4_K_M"]
        pulling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pulling
        app_additions = server.additions
        while app_additions._pulls:
            await asyncio.wait([pull.task for pull in app_additions._pulls.values()])
    assert server.ids == ["own"]
    goes_on.set()
    hub.repositories[REPO].bytes_per_s = None
    assert (await server.lines("/api/pull", {"model": f"{REPO}:Q4_K_M"}))[-1] == {"status": "success"}
    assert server.ids == ["own", f"{REPO}:Q4_K_M"]


async def test_who_closes_the_progress_without_reading_it_gives_the_download_up(
    server: ChangingServer, hub: LoopbackHub
) -> None:
    published(hub, bytes_per_s=500_000)
    steps = await server.additions.pull(f"{REPO}:Q4_K_M")
    others = await server.additions.pull(f"{REPO}:Q4_K_M")
    await steps.aclose()
    await steps.aclose()
    assert server.additions.is_pulling(f"{REPO}:Q4_K_M")
    await others.aclose()
    async with asyncio.timeout(WAIT_S):
        while pulls := list(server.additions._pulls.values()):
            await asyncio.wait([pull.task for pull in pulls])
    assert server.ids == ["own"]


async def test_two_clients_share_one_download(server: ChangingServer, hub: LoopbackHub) -> None:
    published(hub, bytes_per_s=4_000_000)
    both = await asyncio.gather(*(server.lines("/api/pull", {"model": f"{REPO}:Q4_K_M"}) for _ in range(2)))
    assert [lines[-1] for lines in both] == [{"status": "success"}] * 2
    assert len([name for name in hub.downloads() if "Q4_K_M" in name and "bytes" not in name]) <= 1


async def test_deleting_frees_what_was_downloaded_for_the_model_alone(server: ChangingServer, hub: LoopbackHub) -> None:
    published(hub)
    for quant in ("Q4_K_M", "Q8_0"):
        await server.lines("/api/pull", {"model": f"{REPO}:{quant}"})
    await server.client.post("/api/copy", json={"source": f"{REPO}:Q8_0", "destination": "second"})
    deleted = await server.client.request("DELETE", "/api/delete", json={"model": f"{REPO}:Q4_K_M"})
    assert deleted.status_code == 200
    assert server.ids == ["own", f"{REPO}:Q8_0", "second"]
    assert Downloads(server.cache).files(REPO) == ["tiny-Q8_0.gguf"]
    await server.client.request("DELETE", "/api/delete", json={"model": f"{REPO}:Q8_0"})
    assert Downloads(server.cache).files(REPO) == ["tiny-Q8_0.gguf"]
    await server.client.request("DELETE", "/api/delete", json={"model": "second"})
    assert Downloads(server.cache).files(REPO) == []
    assert server.ids == ["own"]


async def test_configured_models_are_not_deleted(server: ChangingServer) -> None:
    refused = await server.client.request("DELETE", "/api/delete", json={"model": "own"})
    assert refused.status_code == 400
    assert "configuration" in refused.json()["error"]
    missing = await server.client.request("DELETE", "/api/delete", json={"model": "nothing"})
    assert missing.status_code == 404


async def test_a_copy_has_the_settings_of_its_source(server: ChangingServer) -> None:
    copied = await server.client.post("/api/copy", json={"source": "own", "destination": "mine:latest"})
    assert copied.status_code == 200
    (mine,) = (model for model in server.reread().models if model.id == "mine")
    assert (mine.sampling.temperature, mine.source) == (0.5, str(server.file.parent / "own.gguf"))
    taken = await server.client.post("/api/copy", json={"source": "own", "destination": "mine"})
    assert taken.status_code == 400


async def test_a_created_model_has_the_parameters_and_the_system_message_of_its_modelfile(
    server: ChangingServer,
) -> None:
    modelfile = (
        'FROM own\nPARAMETER top_k 5\nPARAMETER num_ctx 512\nPARAMETER stop "<end>"\nSYSTEM """\nBe\nbrief."""\n'
    )
    lines = await server.lines("/api/create", {"model": "brief", "modelfile": modelfile})
    assert lines[-1] == {"status": "success"}
    assert {"status": "parameters.stop has no effect here"} in lines
    (brief,) = (model for model in server.reread().models if model.id == "brief")
    assert (brief.sampling.top_k, brief.sampling.temperature) == (5, 0.5)
    assert (brief.device.max_seq_len, brief.system) == (512, "Be\nbrief.")
    again = {"model": "brief", "from": "own", "system": "Be long.", "template": "{{ messages[0].content }}"}
    await server.lines("/api/create", again)
    (brief,) = (model for model in server.reread().models if model.id == "brief")
    assert (brief.system, brief.sampling.top_k) == ("Be long.", None)
    assert brief.chat_template is not None
    assert brief.chat_template.read_text() == "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"modelfile": "FROM own\nADAPTER ./sea.gguf"}, "ADAPTER names a file of the client"),
        ({"from": "own", "adapters": {"a.bin": f"sha256:{'0' * 64}"}}, "'a.bin' is no adapter"),
        ({"from": "own", "adapters": {"a.gguf": f"sha256:{'0' * 64}"}}, "was not sent"),
        ({"from": "own", "messages": [{"role": "user", "content": "Hi"}]}, "MESSAGE"),
        ({"from": "own", "quantize": "q4_0"}, "modelyard quantize"),
        ({"from": "own", "template": "{{ .Prompt }}"}, "Jinja"),
        ({"from": "own", "parameters": {"warmth": 1}}, "'warmth' is not a parameter"),
        ({"from": "own", "parameters": {"temperature": -1}}, "temperature"),
        ({"from": "/etc/passwd"}, "FROM names a model"),
        ({"modelfile": "FROM own\nBREW tea"}, "line 2"),
        ({"modelfile": "FROM own\nPARAMETER top_k many"}, "takes a number"),
        ({}, "Name either a model"),
        ({"files": {"a.gguf": f"sha256:{'0' * 64}"}}, "was not sent"),
    ],
)
async def test_what_a_model_cannot_have_is_refused_with_the_way_out(
    server: ChangingServer, asked: dict[str, Any], said: str
) -> None:
    response = await server.client.post("/api/create", json={"model": "new", **asked, "stream": False})
    assert response.status_code == 400, response.text
    assert said in response.json()["error"]
    assert server.ids == ["own"]


async def test_a_file_that_was_sent_becomes_a_model_and_is_deleted_with_it(server: ChangingServer) -> None:
    content = tiny_model()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (await server.client.head(f"/api/blobs/{digest}")).status_code == 404
    assert (await server.client.post(f"/api/blobs/{digest}", content=content[:-1])).status_code == 400
    assert list(server.uploads.iterdir()) == []
    assert (await server.client.post(f"/api/blobs/{digest}", content=content)).status_code == 201
    assert (await server.client.head(f"/api/blobs/{digest}")).status_code == 200
    lines = await server.lines("/api/create", {"model": "sent", "files": {"x.gguf": digest}})
    assert lines[-1] == {"status": "success"}
    assert server.ids == ["own", "sent"]
    await server.client.request("DELETE", "/api/delete", json={"model": "sent"})
    assert list(server.uploads.iterdir()) == []


async def test_a_file_that_was_sent_and_is_no_model_is_not_kept(server: ChangingServer) -> None:
    digest = f"sha256:{hashlib.sha256(b'no model').hexdigest()}"
    await server.client.post(f"/api/blobs/{digest}", content=b"no model")
    lines = await server.lines("/api/create", {"model": "sent", "files": {"x.gguf": digest}})
    assert "not a GGUF file" in lines[-1]["error"]
    assert list(server.uploads.iterdir()) == []
    assert server.ids == ["own"]


async def test_the_files_of_an_adapter_of_peft_are_put_together_and_deleted_with_the_last_model(
    server: ChangingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = write_adapter(tmp_path / "converted.gguf", tmp_path / "own.gguf")
    seen: list[Path] = []

    def convert(adapter: PeftAdapter, *_: Any) -> Path:
        seen.append(adapter.folder)
        return converted

    monkeypatch.setattr(adapter_files, "convert_adapter", convert)
    folder, sent = write_peft(tmp_path / "adapter"), {}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        content = (folder / name).read_bytes()
        sent[name] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert (await server.client.post(f"/api/blobs/{sent[name]}", content=content)).status_code == 201
    for name in ("one", "two", "one"):
        lines = await server.lines("/api/create", {"model": name, "from": "own", "adapters": sent})
        assert lines[-1] == {"status": "success"}
    assert len(set(seen)) == 1
    (one,) = (model for model in server.reread().models if model.id == "one")
    assert [(adapter.name, adapter.path, adapter.applied) for adapter in one.adapters] == [("adapter", seen[0], True)]
    await server.client.request("DELETE", "/api/delete", json={"model": "one"})
    assert len(list(server.uploads.iterdir())) == 3
    await server.client.request("DELETE", "/api/delete", json={"model": "two"})
    assert list(server.uploads.iterdir()) == []


async def test_the_router_of_llama_cpp_downloads_and_deletes(server: ChangingServer, hub: LoopbackHub) -> None:
    goes_on = threading.Event()
    published(hub, on_piece=lambda *_: goes_on.wait(WAIT_S))
    response = await server.client.post("/models", json={"model": f"{REPO}:Q8_0"})
    assert response.json() == {"success": True}
    assert server.ids == ["own", f"{REPO}:Q8_0"]
    async with asyncio.timeout(WAIT_S):
        with server.yard.monitor.observer() as observer:
            async for change in observer:
                if change.step == "downloading":
                    break
    listed = (await server.client.get("/models")).json()["data"]
    assert [model["status"]["value"] for model in listed] == ["loaded", "downloading"]
    goes_on.set()
    await server.lines("/api/pull", {"model": f"{REPO}:Q8_0"})
    assert [model.id for model in server.reread().models] == ["own", f"{REPO}:Q8_0"]
    assert (await server.client.delete("/models", params={"model": f"{REPO}:Q8_0"})).json() == {"success": True}
    assert server.ids == ["own"]


async def test_a_push_is_refused_by_name(server: ChangingServer) -> None:
    refused = await server.client.post("/api/push", json={"model": "own"})
    assert refused.status_code == 400
    assert "uploads nothing" in refused.json()["error"]


async def test_an_edited_file_is_read_and_one_with_a_mistake_is_left_out(
    server: ChangingServer, caplog: pytest.LogCaptureFixture
) -> None:
    await server.client.post("/api/copy", json={"source": "own", "destination": "mine"})
    (file,) = (server.file.parent / "models.d").glob("*.toml")
    file.write_text(file.read_text().replace("0.5", "0.25"))
    (file.parent / "bad.toml").write_text("[[models]]\nmodel_id = 5\n")
    (mine,) = (model for model in server.reread().models if model.id == "mine")
    assert mine.sampling.temperature == 0.25
    assert any("bad.toml" in line for line in caplog.messages)
