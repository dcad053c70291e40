"""A configuration file that changes while its models serve."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.test_command_line import started
from modelyard.config import load_config
from support.server import WAIT_S, RunningServer, serving

SHORT = "device.max_seq_len = 256\n"


class File:
    """A configuration file of the test's."""

    def __init__(self, path: Path, weights: dict[str, Path]) -> None:
        self.path, self.weights = path, weights

    def write(self, *models: str, top: str = "") -> None:
        self.path.write_text(f'default_model_id = "smol"\n{top}' + "".join(models))

    def smol(self, *lines: str, device: str = SHORT, name: str = "smol") -> str:
        text = "".join(f"{line}\n" for line in lines)
        return f'[[models]]\nmodel_id = "{self.weights["smollm2"]}"\nalias = "{name}"\n{text}{device}'

    def gemma(self, *lines: str) -> str:
        text = "".join(f"{line}\n" for line in lines)
        return f'[[models]]\nmodel_id = "{self.weights["gemma3"]}"\nalias = "gemma"\n{text}{SHORT}'


@pytest.fixture
def file(drawn_weights: dict[str, Path], tmp_path: Path) -> File:
    file = File(tmp_path / "models.toml", drawn_weights)
    file.write(file.smol(), file.gemma())
    return file


@pytest.fixture
def server(file: File) -> Iterator[RunningServer]:
    with serving(load_config(file.path), read_config=lambda: load_config(file.path)) as running:
        yield running


def reload(server: RunningServer, query: str = "") -> dict[str, Any]:
    answer = server.post(f"/v1/config/reload{query}", {})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def text_of(server: RunningServer, model: str | None = None, tokens: int = 3, **fields: Any) -> httpx.Response:
    body = {"prompt": "A story:", "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **fields}
    return server.post("/v1/completions", body if model is None else {**body, "model": model})


def test_a_file_that_did_not_change_changes_nothing(server: RunningServer) -> None:
    engines = server.read(lambda: dict(server.yard.controller._engines.engines))
    done = reload(server)
    assert (done["added"], done["removed"], done["changed"], done["retuned"]) == ([], [], {}, [])
    assert server.read(lambda: dict(server.yard.controller._engines.engines)) == engines


def test_a_dry_run_says_what_would_change_and_changes_nothing(server: RunningServer, file: File) -> None:
    file.write(file.smol(device="device.max_seq_len = 512\n"), file.smol('load = "on-demand"', name="other"))
    done = reload(server, "?dry_run=1")
    assert done["applied"] is False
    assert (done["added"], done["removed"]) == (["other"], ["gemma"])
    assert done["changed"]["smol"] == {"keys": ["device"], "how": "loads the new one first", "error": None}
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["smol", "gemma"]
    assert server.get("/v1/models/smol").json()["context_length"] == 256


def test_a_model_whose_settings_changed_is_replaced_without_an_error_to_anyone(
    server: RunningServer, file: File
) -> None:
    file.write(file.smol(device="device.max_seq_len = 512\n"), file.gemma())
    engine = server.read(lambda: server.yard.controller._engines.engines["gemma"])
    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(text_of, server, "smol", 100) for _ in range(4)]
        done = reload(server)
        later = [pool.submit(text_of, server, "smol", 10) for _ in range(4)]
        answers = [answer.result(WAIT_S) for answer in (*running, *later)]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [100] * 4 + [10] * 4
    assert done["changed"]["smol"]["keys"] == ["device"]
    assert server.get("/v1/models/smol").json()["context_length"] == 512
    assert server.read(lambda: server.yard.controller._engines.engines["gemma"]) is engine
    # The old engine is gone when its last answer is.
    names = server.read(lambda: list(server.yard.controller.state.models))
    assert sorted(names) == ["gemma", "smol #2"]


def test_where_memory_has_no_room_for_both_the_old_one_goes_first_and_requests_wait(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    file = File(tmp_path / "models.toml", weights)
    tight = '[memory]\nbudget = "220MB"\n[runtime]\nmax_seqs = 2\nprefix_cache_n = 2\n'
    file.write(file.smol(device="device.max_seq_len = 1024\n"), top=tight)
    with serving(load_config(file.path), read_config=lambda: load_config(file.path)) as server:
        file.write(file.smol(device="device.max_seq_len = 2048\n"), top=tight)
        with ThreadPoolExecutor(3) as pool:
            running = pool.submit(text_of, server, "smol", 60)
            while not server.read(lambda: server.yard.controller.state.models["smol"].leases):
                pass
            reloading = pool.submit(reload, server)
            assert running.result(WAIT_S).json()["usage"]["completion_tokens"] == 60
            assert reloading.result(WAIT_S)["changed"]["smol"]["how"] == "unloads the old one first"
        assert text_of(server, "smol").status_code == 200
        assert server.get("/v1/models/smol").json()["context_length"] == 2048


def test_added_models_serve_and_removed_ones_are_unknown(server: RunningServer, file: File) -> None:
    file.write(file.smol(), file.smol('load = "on-demand"', name="other"))
    reload(server)
    assert text_of(server, "other").status_code == 200
    assert text_of(server, "gemma").json()["error"]["code"] == "model_not_found"
    assert text_of(server).status_code == 200


def test_what_only_concerns_the_treatment_of_a_model_restarts_nothing(server: RunningServer, file: File) -> None:
    file.write(file.smol("pinned = true", 'aliases = ["tiny"]'), file.gemma("idle_unload_seconds = 0"))
    engine = server.read(lambda: server.yard.controller._engines.engines["smol"])
    done = reload(server)
    assert (done["changed"], done["retuned"]) == ({}, ["smol", "gemma"])
    assert server.read(lambda: server.yard.controller._engines.engines["smol"]) is engine
    assert text_of(server, "tiny").json()["model"] == "smol"
    assert server.get("/v1/models/smol").json()["pinned"] is True
    assert server.get("/v1/models/gemma").json()["status"] == "unloaded"


@pytest.mark.parametrize(
    ("change", "said"), [("port = [", "not valid TOML"), ("colour = 1\n", "colour"), (None, "no-such-model.gguf")]
)
def test_a_bad_file_is_refused_with_its_problems_and_changes_nothing(
    server: RunningServer, file: File, change: str | None, said: str
) -> None:
    if change is None:
        file.write(file.smol(), file.gemma(), '[[models]]\nmodel_id = "./no-such-model.gguf"\n')
    else:
        file.write(file.smol(), top=change)
    answer = server.post("/v1/config/reload", {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "config_error")
    assert said in answer.json()["error"]["message"]
    assert [model["status"] for model in server.get("/v1/models").json()["data"]] == ["loaded", "loaded"]
    assert text_of(server, "gemma").status_code == 200


def test_keys_that_need_a_restart_are_named(server: RunningServer, file: File) -> None:
    file.write(file.smol(), file.gemma(), top="[server]\nport = 4321\n")
    assert reload(server)["needs_restart"] == ["port"]


def test_a_server_without_a_file_has_nothing_to_read_again(file: File) -> None:
    file.write(file.smol('load = "on-demand"'))
    with serving(load_config(file.path)) as server:
        answer = server.post("/v1/config/reload", {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_the_hangup_signal_reads_the_file_again(file: File) -> None:
    file.write(file.smol(), top="server.port = 0\n")
    with started("from-config", "-f", str(file.path)) as (process, said):
        url = re.search(r"http://\S+/v1", said)
        assert url
        file.write("colour = 1\n")
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert any("was not reloaded" in line for line in process.stdout)
        file.write(file.smol(), file.smol('load = "on-demand"', name="other"), top="server.port = 0\n")
        process.send_signal(signal.SIGHUP)
        assert any("was reloaded" in line for line in process.stdout)
        ids = [model["id"] for model in httpx.get(f"{url[0]}/models", timeout=WAIT_S).json()["data"]]
        assert ids == ["smol", "other"]
