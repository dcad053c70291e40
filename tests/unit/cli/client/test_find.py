from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.client.find import (
    candidates,
    configured_address,
    model_in,
    read_key,
    server_of_file,
    server_with_model,
)
from modelyard.errors import ConfigError, ModelNotFound, NotModelyard, ServerUnreachable
from modelyard.system.announcements import Announcement, announced, start_of, this_machine
from support.odd_server import free_port, http_answer, odd_server

IDLE = {"state": "unloaded", "running": 0, "waiting": 0}
MODELS: list[dict[str, Any]] = [
    {**IDLE, "id": "small", "aliases": ["s"], "source": "/models/small.gguf"},
    {
        **IDLE,
        "id": "large",
        "aliases": [],
        "source": "org/Large-GGUF",
        "quantization": "Q4_K_M",
        "default": True,
    },
]


@contextmanager
def modelyard(models: list[dict[str, Any]] = MODELS) -> Iterator[str]:
    state = json.dumps({"object": "server", "version": "1", "memory": None, "models": models})
    with odd_server(http_answer("200 OK", "application/json", state)) as url:
        yield url


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}


@contextmanager
def announces(
    environ: dict[str, str], *urls: str, config: str | None = None, is_serving: bool = True
) -> Iterator[None]:
    with ExitStack() as stack:
        for number, (url, pid) in enumerate(zip(urls, (os.getpid(), os.getppid()), strict=False)):
            found = Announcement(
                url=url,
                pid=pid,
                start=start_of(pid),
                machine=this_machine(),
                version="1",
                began=float(number),
                is_serving=is_serving,
                config=config,
            )
            stack.enter_context(announced(found, environ))
        yield


def test_the_option_comes_before_the_variable_and_that_before_running_servers(environ: dict[str, str]) -> None:
    environ["MODELYARD_HOST"] = "box"
    named = configured_address("other:1", environ)
    assert named is not None
    assert (named.url, named.source) == ("http://other:1", "--url")
    with announces(environ, "http://127.0.0.1:5"):
        assert [each.url for each in candidates(None, environ)] == ["http://box:1234"]
        del environ["MODELYARD_HOST"]
        assert [each.url for each in candidates(None, environ)] == ["http://127.0.0.1:5"]
    assert [each.url for each in candidates(None, environ)] == ["http://127.0.0.1:1234"]


def test_an_empty_variable_names_no_server(environ: dict[str, str]) -> None:
    assert configured_address(None, {**environ, "MODELYARD_HOST": ""}) is None


def test_a_server_of_this_machine_is_known_also_when_it_is_named(environ: dict[str, str]) -> None:
    with announces(environ, "http://127.0.0.1:5"):
        found = {named: candidates(named, environ)[0] for named in (":5", "localhost:5", "[::1]:5", ":6", "box:5")}
    assert [named for named, server in found.items() if server.announcement is not None] == [
        ":5",
        "localhost:5",
        "[::1]:5",
    ]


def test_a_key_comes_from_its_file_or_a_variable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("sk-a\n")
    (tmp_path / "b").write_text("sk-b")
    environ = {"MODELYARD_API_KEY": " sk-env ", "MODELYARD_API_KEY_FILE": str(tmp_path / "b")}
    assert read_key(environ, tmp_path / "a") == "sk-a"
    assert read_key(environ) == "sk-env"
    assert read_key({**environ, "MODELYARD_API_KEY": ""}) == "sk-b"
    assert read_key({}) is None


@pytest.mark.parametrize("content", [b"", b"two words", b"a\nb", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_key_is_refused_and_not_repeated(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_key({}, tmp_path / "key")
    assert "--key-file" in str(refused.value)
    assert "two words" not in str(refused.value)


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_key({"MODELYARD_API_KEY_FILE": str(tmp_path / "key")})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, "large"),
        ("small", "small"),
        ("s", "small"),
        ("/models/small.gguf", "small"),
        ("org/Large-GGUF", "large"),
        ("org/large-gguf:q4_k_m", "large"),
        ("org/Large-GGUF:Q8_0", None),
        ("small:latest", "small"),
        ("org/Large-GGUF:latest", "large"),
        ("smal", None),
        ("", None),
    ],
)
def test_a_model_is_meant_by_id_alias_path_or_hub_id(wanted: str | None, found: str | None) -> None:
    assert model_in(MODELS, wanted) == found


def test_a_model_is_meant_by_any_path_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    (tmp_path / "link.gguf").symlink_to(tmp_path / "m.gguf")
    monkeypatch.chdir(tmp_path)
    models = [{"id": "m", "aliases": [], "source": str(tmp_path / "m.gguf")}]
    assert model_in(models, "./m.gguf") == model_in(models, "link.gguf") == "m"


def test_a_file_of_the_same_name_elsewhere_is_another_model(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").touch()
    assert model_in(MODELS, str(tmp_path / "small.gguf")) is None


def test_a_running_server_with_the_model_is_used(environ: dict[str, str]) -> None:
    with modelyard() as with_it, modelyard([]) as without, announces(environ, with_it, without):
        found = server_with_model("s", None, environ)
        assert found is not None
        assert (found.url, found.model) == (with_it, "small")
        assert server_with_model("org/other", None, environ) is None


def test_a_model_with_adapters_is_one_of_the_server_that_has_them(environ: dict[str, str]) -> None:
    adapters = [{"id": f"small::{name}", "name": name, "scale": 1.0} for name in ("sea", "land")]
    with modelyard([{**MODELS[0], "adapters": adapters}]) as url, announces(environ, url):
        for name, answering in (("s::sea", "small::sea"), ("small::land+sea", "small::land+sea")):
            found = server_with_model(name, None, environ)
            assert found is not None
            assert found.model == answering
        for unknown in ("small::sky", "small::sea+sky", "other::sea"):
            with pytest.raises(ModelNotFound):
                server_with_model(unknown, None, environ)


def test_a_model_that_only_a_server_can_have_may_be_one_of_a_server_that_starts(environ: dict[str, str]) -> None:
    with free_port() as port, announces(environ, f"http://127.0.0.1:{port}", is_serving=False):
        for name in ("small", None):
            with pytest.raises(ServerUnreachable, match="it is starting, and loads its models"):
                server_with_model(name, None, environ)
        # This machine can load it, too.
        assert server_with_model("org/other", None, environ) is None


def test_a_name_that_only_a_server_can_know_is_compared_with_the_models_of_all(environ: dict[str, str]) -> None:
    known = re.escape("Known: small, large. Did you mean 'small'")
    with (
        modelyard() as with_it,
        modelyard([]) as without,
        announces(environ, with_it, without),
        pytest.raises(ModelNotFound, match=known),
    ):
        server_with_model("smal", None, environ)
    with modelyard([]) as without, announces(environ, without):
        assert server_with_model("smal", None, environ) is None


def test_what_no_server_can_answer_names_the_command_for_this_machine() -> None:
    with free_port() as port:
        for line, hint in (("list", "modelyard cache list"), ("show ./x.gguf", "modelyard resolve ./x.gguf")):
            refused = CliRunner().invoke(app, [*line.split(), "--url", f":{port}"])
            assert hint in " ".join(refused.output.split())


def test_an_option_of_a_load_is_refused_for_a_model_that_a_server_has_loaded(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with modelyard() as url, announces(environ, url):
        for option in (("--ctx", "512"), ("--local",)):
            refused = CliRunner().invoke(app, ["run", "small", "-i", "Hi", *option])
            said = " ".join(refused.output.split())
            assert f"{option[0]} is for a model of this process, and 'small' is one of the server at {url}." in said


def test_a_running_server_that_hangs_is_passed_over_in_a_bounded_time(environ: dict[str, str]) -> None:
    with odd_server(None) as hangs, modelyard() as with_it, announces(environ, with_it, hangs):
        found = server_with_model("small", None, environ)
    assert found is not None
    assert found.url == with_it


def test_a_server_that_was_named_and_is_not_there_is_an_error(environ: dict[str, str]) -> None:
    with free_port() as port:
        with pytest.raises(ServerUnreachable):
            server_with_model("small", f":{port}", environ)
        with pytest.raises(ServerUnreachable):
            server_with_model("small", None, {**environ, "MODELYARD_HOST": f":{port}"})


def test_a_server_that_was_named_without_the_model_is_an_error_that_knows_the_nearest(environ: dict[str, str]) -> None:
    with modelyard() as url, pytest.raises(ModelNotFound, match="Did you mean 'small'"):
        server_with_model("smal", url, environ)


def test_another_program_is_no_server_unless_it_was_named(environ: dict[str, str]) -> None:
    with odd_server(http_answer("200 OK", "text/plain", "Ollama is running")) as url:
        with announces(environ, url):
            assert server_with_model("small", None, environ) is None
        with pytest.raises(NotModelyard):
            server_with_model("small", url, environ)


def test_a_server_that_runs_with_a_file_is_found_by_the_file_where_it_has_the_model(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    file, other = tmp_path / "models.toml", tmp_path / "link.toml"
    file.touch()
    other.symlink_to(file)
    with modelyard() as url, announces(environ, url, config=str(file)):
        found = server_of_file(other, "small", environ)
        assert found is not None
        assert (found.url, found.model) == (url, "small")
        assert server_of_file(file, "not read again yet", environ) is None
        assert server_of_file(tmp_path / "another.toml", "small", environ) is None
