"""Who asks the hub, what comes while others wait, and what a download leaves that does not end well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelyard.config import read_token, validate_config
from modelyard.errors import ConfigError, RepositoryUnavailable
from modelyard.hub import ConvertedModels, FileRequest, Hub, Stores, resolve
from support.gguf_writer import STR, shards, tiny_model
from support.hub import LoopbackHub, serving_hub
from support.server import WAIT_S, serving

TOKEN = "hf_of_this_test"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with serving_hub() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def stores(hub: LoopbackHub, cache: Path, token: str | bool | None = False) -> Stores:
    return Stores(Hub(cache, token, hub.url), ConvertedModels(cache / "converted"))


# Tokens


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "login"))


@pytest.mark.usefixtures("no_login")
@pytest.mark.parametrize(
    "source", [f"literal:{TOKEN}", "env:MY_TOKEN", "env", "env:", "path:{folder}/token", "cache", "HF_TOKEN"]
)
def test_every_source_of_the_token_opens_a_gated_repository(
    hub: LoopbackHub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
):
    hub.add("org/tiny", {"tiny.gguf": tiny_model()}, gated=True, token=TOKEN)
    match source:
        case "env:MY_TOKEN":
            monkeypatch.setenv("MY_TOKEN", TOKEN)
        case "env" | "env:":
            monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", TOKEN)
        case "cache":
            (tmp_path / "login").write_text(f"{TOKEN}\n")
        case "HF_TOKEN":
            monkeypatch.setenv("HF_TOKEN", TOKEN)
            source = "cache"
        case _:
            (tmp_path / "token").write_text(f"{TOKEN}\n")
    token = read_token(source.format(folder=tmp_path))
    files = resolve(FileRequest("org/tiny"), stores(hub, cache, token))
    assert files.paths[0].name == "tiny.gguf"
    assert hub.authorizations == {f"Bearer {TOKEN}"}


def test_who_wants_to_be_nobody_sends_no_token(hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("org/tiny", {"tiny.gguf": tiny_model()}, gated=True, token=TOKEN)
    with pytest.raises(RepositoryUnavailable) as refused:
        resolve(FileRequest("org/tiny"), stores(hub, cache, read_token("none")))
    assert refused.value.why == "gated"
    assert hub.authorizations == {None}


def test_a_wrong_token_says_so_without_repeating_it(hub: LoopbackHub, cache: Path):
    hub.add("org/tiny", {"tiny.gguf": tiny_model()}, gated=True, token=TOKEN)
    with pytest.raises(RepositoryUnavailable) as refused:
        resolve(FileRequest("org/tiny"), stores(hub, cache, "hf_another_one"))
    assert refused.value.why == "gated"
    assert "hf_another_one" not in str(refused.value)


@pytest.mark.parametrize(("source", "named"), [("env:NO_SUCH_TOKEN", "NO_SUCH_TOKEN"), ("path:/no/token", "/no/token")])
def test_a_token_that_is_not_there_is_named(source: str, named: str):
    with pytest.raises(ConfigError, match=named):
        read_token(source)


# Offline


def test_offline_what_is_missing_is_said_and_nobody_is_asked(hub: LoopbackHub, tmp_path: Path):
    """In a process of its own: huggingface_hub reads its environment once, when it is imported."""
    hub.add("org/tiny", {"tiny.gguf": tiny_model()})
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": hub.url,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "modelyard", "resolve", "org/tiny@v2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 4
    assert " ".join(done.stderr.split()) == (
        "error: 'org/tiny' at revision 'v2' is not in the local Hugging Face cache, and offline mode forbids to "
        "download it. Unset HF_HUB_OFFLINE, or name a file or folder that is on this machine."
    )
    assert hub.requests == []


# Downloads


def test_several_files_come_at_once(hub: LoopbackHub, cache: Path, tmp_path: Path):
    parts = {path.name: path.read_bytes() for path in shards(tmp_path / "parts")}
    together = threading.Barrier(len(parts))

    def wait_for_the_others(_name: str, sent: int) -> None:
        if sent == 0:
            together.wait(WAIT_S)

    hub.add("org/tiny", parts, on_piece=wait_for_the_others)
    assert len(parts) > 1
    assert len(resolve(FileRequest("org/tiny"), stores(hub, cache)).paths) == len(parts)


def test_a_process_that_is_killed_while_it_downloads_leaves_nothing_that_is_used(hub: LoopbackHub, cache: Path):
    content = tiny_model({"tokenizer.chat_template": (STR, "x" * 3_000_000)})
    is_half_way, is_over = threading.Event(), threading.Event()

    def stop_half_way(_name: str, sent: int) -> None:
        if sent > len(content) // 2:
            is_half_way.set()
            is_over.wait(WAIT_S)

    repository = hub.add("org/tiny", {"tiny.gguf": content}, on_piece=stop_half_way)
    program = (
        "from pathlib import Path; from modelyard.hub import Hub, Stores, FileRequest, resolve; "
        f"resolve(FileRequest('org/tiny'), Stores(Hub(Path({str(cache)!r}), False, {hub.url!r})))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        try:
            assert is_half_way.wait(WAIT_S)
            process.send_signal(signal.SIGKILL)
            process.wait(WAIT_S)
        finally:
            process.kill()
            is_over.set()
    assert not list(cache.rglob("*.gguf"))
    repository.on_piece = None
    assert resolve(FileRequest("org/tiny"), stores(hub, cache)).paths[0].read_bytes() == content


def test_a_revision_is_a_branch_or_a_commit(hub: LoopbackHub, cache: Path):
    repository = hub.add("org/tiny", {"tiny.gguf": tiny_model()}, revision="v2")
    by_branch = resolve(FileRequest("org/tiny@v2"), stores(hub, cache))
    by_commit = resolve(FileRequest(f"org/tiny@{repository.commit}"), stores(hub, cache))
    assert by_branch.paths == by_commit.paths


def test_a_server_shows_a_download_while_it_runs_and_then_serves_the_model(
    hub: LoopbackHub, cache: Path, weights: dict[str, Path]
):
    size = weights["smollm2"].stat().st_size
    is_half_way, go_on = threading.Event(), threading.Event()

    def stop_half_way(_name: str, sent: int) -> None:
        if sent > size // 2:
            is_half_way.set()
            go_on.wait(WAIT_S)

    hub.add("org/smol-GGUF", {"smol-Q4_1.gguf": weights["smollm2"]}, on_piece=stop_half_way)
    config = validate_config(
        {
            "runtime": {"max_seqs": 2, "prefix_cache_n": 0},
            "models": [
                {
                    "model_id": "org/smol-GGUF",
                    "alias": "smol",
                    "load": "on-demand",
                    "device": {"max_seq_len": 256, "max_batch_size": 1},
                    "format": {"quantized_file": "smol-Q4_1.gguf"},
                }
            ],
        }
    )
    with serving(config, stores=stores(hub, cache)) as server:
        try:
            with (
                httpx.stream("GET", f"{server.url}/v1/models/events", timeout=WAIT_S) as events,
                server.client() as client,
            ):
                told = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
                assert next(told) == {"model_id": "smol", "status": "unloaded"}
                answers: list[str | None] = []

                def ask() -> None:
                    question = [{"role": "user", "content": "What is the capital of France?"}]
                    answer = client.chat.completions.create(
                        model="smol",
                        messages=question,  # type: ignore[arg-type]
                        max_tokens=20,
                        temperature=0,
                    )
                    answers.append(answer.choices[0].message.content)

                asking = threading.Thread(target=ask)
                asking.start()
                assert is_half_way.wait(WAIT_S)
                seen = next(event for event in told if event.get("stage") == "downloading" and event["progress"] > 0.2)
                assert seen["status"] == "reloading"
                (model,) = server.get("/v1/models").json()["data"]
                assert (model["status"], model["stage"]) == ("reloading", "downloading")
                assert 0.2 < model["progress"] < 0.9
                assert not list(cache.rglob("*.gguf"))
                go_on.set()
                asking.join(WAIT_S)
                assert answers[0]
                assert next(event for event in told if event["status"] == "loaded")["stage"] == "loaded"
        finally:
            go_on.set()
        (model,) = server.get("/v1/models").json()["data"]
        assert (model["status"], model["quantization"]) == ("loaded", "Q4_1")
        assert "stage" not in model
