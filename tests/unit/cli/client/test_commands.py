"""The commands against a running server, as their users type them: a real server, whose engines are scripted."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from modelyard.api.server.log_ring import LogRing
from modelyard.cli import app
from modelyard.cli.client.logs import earliest
from modelyard.cli.exit_codes import MODEL, NO_SERVER, REFUSED, USAGE
from modelyard.config import Config, validate_config
from support.adapters import write_adapter
from support.gguf_writer import tiny_model, write
from support.odd_server import free_port, http_answer, odd_server
from support.scripted_engines import ScriptedEngines
from support.server import RunningServer, serving

LONG_ID = "an-organisation-with-a-long-name/a-model-with-a-name-that-is-far-too-long-for-a-narrow-terminal-Q4_K_M"
KEY = "sk-a-key-for-the-tests"
LOGGER = logging.getLogger("test of the commands")


@dataclass
class Yard:
    """A server with three models, and the commands sent to it.

    Attributes:
        server: the server.
        folder: of its models.
        config: replaced by a test that reloads it.
    """

    server: RunningServer
    folder: Path
    config: Config

    def run(self, *args: str, **environ: str) -> Result:
        environ = {"MODELYARD_HOST": self.server.url, "MODELYARD_API_KEY": KEY, "COLUMNS": "80", **environ}
        return CliRunner().invoke(app, list(args), env=environ)

    def answer(self, *args: str) -> Any:
        done = self.run(*args, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def states(self) -> dict[str, str]:
        return {model["id"]: model["state"] for model in self.answer("list")["models"]}


def configured(folder: Path, **small: Any) -> Config:
    models: list[dict[str, Any]] = [
        {"model_id": "./small.gguf", "alias": "small", "aliases": ["s"], "load": "on-demand", **small},
        {"model_id": "./large.gguf", "alias": "large", "load": "on-demand"},
        {"model_id": "./long.gguf", "alias": LONG_ID, "load": "on-demand"},
    ]
    server = {"api_keys": [KEY], "keys": [{"name": "guest", "key": "sk-guest-of-the-tests"}]}
    return validate_config({"server": server, "models": models}, source="test", base=folder)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    for name in ("small", "large", "long"):
        write(tmp_path / f"{name}.gguf", tiny_model())
    engines, ring, yards = ScriptedEngines(answer=lambda _: ["Hello"]), LogRing(), []
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(ring)
    config = configured(tmp_path)
    try:
        with serving(config, engines.make_handle, read_config=lambda: yards[0].config, log_ring=ring) as server:
            yards.append(Yard(server, tmp_path, config))
            yield yards[0]
    finally:
        LOGGER.removeHandler(ring)
        assert engines.end()


def test_models_are_loaded_parked_and_unloaded(yard: Yard) -> None:
    assert yard.states() == {"small": "unloaded", "large": "unloaded", LONG_ID: "unloaded"}
    assert yard.run("load", "s", "large").exit_code == 0
    assert yard.states() == {"small": "loaded", "large": "loaded", LONG_ID: "unloaded"}
    done = yard.run("park", "small")
    assert "small is parked" in done.stdout
    assert yard.states()["small"] == "parked"
    assert [model["id"] for model in yard.answer("ps")["models"]] == ["small", "large"]
    assert yard.run("unload", "small", "large", "--now").exit_code == 0
    assert yard.states() == {"small": "unloaded", "large": "unloaded", LONG_ID: "unloaded"}


def test_stop_with_a_model_unloads_it_as_ollamas_does(yard: Yard) -> None:
    yard.run("load", "small")
    assert yard.run("stop", "small").stdout == "small is unloaded.\n"
    assert yard.states()["small"] == "unloaded"


def test_ps_without_loaded_models_says_so_and_json_is_a_document_even_then(yard: Yard) -> None:
    done = yard.run("ps")
    assert done.stdout == ""
    assert "No model is loaded" in done.stderr
    assert yard.answer("ps")["models"] == []


def test_a_model_is_named_by_its_path_or_an_alias(yard: Yard) -> None:
    path = str(yard.folder / "small.gguf")
    assert yard.answer("show", path)["id"] == yard.answer("show", "s")["id"] == "small"


def test_show_has_the_adapters_of_a_model(yard: Yard) -> None:
    write_adapter(yard.folder / "sea.gguf", yard.folder / "small.gguf")
    named = [{"name": name, "path": "./sea.gguf", "scale": 0.5, "applied": name == "land"} for name in ("sea", "land")]
    yard.config = configured(yard.folder, adapters=named)
    assert yard.run("reload").exit_code == 0
    shown = " ".join(yard.run("show", "small").stdout.split())
    assert "small::sea (scale 0.5) small::land (scale 0.5, also without its name)" in shown


def test_show_has_the_files_and_the_memory_of_a_model_that_no_server_has(yard: Yard, tmp_path: Path) -> None:
    file = write(tmp_path / "unserved.gguf", tiny_model())
    shown = yard.run("show", str(file))
    assert shown.exit_code == 0, shown.output
    assert "No running server has" in shown.stderr
    assert "unserved.gguf" in shown.stdout
    assert "Memory:" in shown.stdout
    assert yard.answer("show", str(file))["files"][0]["name"] == "unserved.gguf"
    with free_port() as port:
        assert yard.run("show", str(file), MODELYARD_HOST=f":{port}").exit_code == 0
        assert yard.run("show", str(file), "--url", f":{port}").exit_code == NO_SERVER


@pytest.mark.parametrize("command", ["show", "load", "unload", "park", "plan", "stop", "reload"])
def test_a_model_that_does_not_exist_is_answered_with_the_nearest(yard: Yard, command: str) -> None:
    done = yard.run(command, "smal")
    assert (done.exit_code, done.stdout) == (MODEL, "")
    assert "Did you mean 'small'?" in done.stderr


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("command", ["ps", "list"])
def test_ids_are_whole_at_any_width(yard: Yard, command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.run("load", LONG_ID)
    monkeypatch.setenv("FORCE_COLOR", "")
    monkeypatch.setattr("modelyard.cli.tables.table_console", lambda: _console(columns))
    shown = yard.run(command).stdout
    assert LONG_ID in shown
    assert "loaded" in shown


def _console(columns: int) -> Any:
    from rich.console import Console

    return Console(highlight=False, width=columns)


def test_plan_says_whether_a_model_fits(yard: Yard) -> None:
    assert yard.answer("plan", "large")["outcome"] == "fits"
    assert yard.run("plan", "large").stdout.startswith("large needs ")
    yard.run("load", "large")
    assert yard.run("plan", "large").stdout == "large is loaded.\n"


def test_reload_shows_what_a_changed_configuration_changes(yard: Yard) -> None:
    assert yard.run("reload").stdout == "Nothing has changed.\n"
    yard.config = configured(yard.folder, sampling={"temperature": 0.5})
    assert yard.run("reload", "--dry-run").stdout == "small: would change sampling; is not loaded\n"
    assert yard.run("reload").stdout == "small: changed sampling; is not loaded\n"
    assert yard.answer("reload", "--dry-run")["changed"] == {}


def test_reload_with_a_model_loads_it_anew(yard: Yard) -> None:
    yard.run("load", "small")
    assert "small is loaded" in yard.run("reload", "small").stdout
    assert yard.run("reload", "small", "--dry-run").exit_code == USAGE


def test_pull_of_a_model_of_the_server_prepares_its_files_there(yard: Yard) -> None:
    assert yard.run("pull", "small").stdout == "The files of small are on the server's machine.\n"
    assert yard.states()["small"] == "unloaded"


def test_the_log_is_shown_and_filtered(yard: Yard) -> None:
    for text in ("one", "Loaded small in 1 s", "Loaded smaller in 1 s"):
        LOGGER.info(text)
    shown = yard.run("logs", "-n", "2").stdout.splitlines()
    assert [line.split(" INFO ")[1] for line in shown] == ["Loaded small in 1 s", "Loaded smaller in 1 s"]
    lines = yard.run("logs", "--json", "-m", "s").stdout.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["Loaded small in 1 s"]
    assert yard.run("logs", "--since", "2999-01-01").stdout == ""
    assert yard.run("logs", "--since", "yesterday").exit_code == USAGE


@pytest.mark.parametrize(
    ("text", "ago_s"), [("90", 90), ("1h30m", 5400), ("1H30M", 5400), ("90sec", 90), ("2 days", 172_800)]
)
def test_since_takes_durations_as_the_configuration_does(text: str, ago_s: float) -> None:
    assert earliest(text, now=1e9) == 1e9 - ago_s


def test_what_clients_have_sent_does_not_drive_the_terminal(yard: Yard) -> None:
    LOGGER.info("path=/\x1b[2J\x07 and\na second line")
    assert yard.run("logs", "-n", "1").stdout.endswith(" INFO path=/\\x1b[2J\\x07 and\na second line\n")


def test_a_command_without_a_key_says_where_to_put_one(yard: Yard) -> None:
    done = yard.run("ps", MODELYARD_API_KEY="")
    assert done.exit_code == REFUSED
    assert "--key-file" in done.stderr


def test_a_key_that_may_not_do_it_is_told_the_servers_reason(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-guest-of-the-tests\n")
    assert yard.run("ps", "--key-file", str(tmp_path / "key")).exit_code == 0
    done = yard.run("load", "small", "--key-file", str(tmp_path / "key"))
    assert done.exit_code == REFUSED
    assert "needs the scope 'admin'" in done.stderr


def test_where_models_come_from_is_for_keys_that_may_manage_them(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-guest-of-the-tests")
    assert yard.answer("show", "small")["source"] == str(yard.folder / "small.gguf")
    assert "source" not in yard.answer("show", "small", "--key-file", str(tmp_path / "key"))


def test_a_model_that_cannot_be_loaded_is_an_error_with_the_servers_reason_and_the_others_are_loaded(
    yard: Yard,
) -> None:
    (yard.folder / "large.gguf").write_bytes(b"no model")
    done = yard.run("load", "small", "large")
    assert done.exit_code == MODEL
    assert "small is loaded" in done.stdout
    assert "large" in done.stderr
    found = json.loads(yard.run("load", "small", "large", "--json").stdout)["models"]
    assert [model.get("error", {}).get("code") for model in found] == [None, "model_load_failed"]


def test_a_server_that_was_not_started_here_is_not_stopped(yard: Yard) -> None:
    done = yard.run("stop")
    assert done.exit_code == NO_SERVER
    assert "Stop it there" in done.stderr
    assert yard.states()


@pytest.mark.parametrize("command", ["ps", "list", "events", "logs", "stop", "reload"])
def test_without_a_server_a_command_names_the_address_and_has_an_exit_code_of_its_own(command: str) -> None:
    with free_port() as port:
        done = CliRunner().invoke(app, [command, "--url", f":{port}"])
    assert (done.exit_code, done.stdout) == (NO_SERVER, "")
    assert f"http://127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("command", ["ps", "list", "load m", "plan m", "show m", "stop m", "logs -m m"])
def test_a_program_that_poses_as_modelyard_is_no_server(command: str) -> None:
    answer = json.dumps({"object": "server", "models": [{"id": "m"}]})
    with odd_server(http_answer("200 OK", "application/json", answer)) as url:
        done = CliRunner().invoke(app, [*command.split(), "--url", url])
    assert (done.exit_code, done.stdout) == (NO_SERVER, "")
    assert "is not Modelyard" in done.stderr


def test_an_address_that_is_none_is_refused_by_the_name_of_the_option() -> None:
    done = CliRunner().invoke(app, ["ps", "--url", "ftp://box"])
    assert done.exit_code == USAGE
    assert "--url" in done.stderr


def test_events_are_followed_until_the_server_stops(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "./m.gguf", "alias": "m"}]}, source="test", base=tmp_path)
    engines, done = ScriptedEngines(answer=lambda _: ["Hello"]), []
    with pytest.MonkeyPatch.context() as patch:
        # The server does not come back.
        patch.setattr("modelyard.cli.client.follow.RECONNECT_S", 0.0)
        with serving(config, engines.make_handle) as server:
            following = threading.Thread(
                target=lambda: done.append(CliRunner().invoke(app, ["events", "--json", "--url", server.url]))
            )
            following.start()
            while not server.read(lambda: len(server.yard.controller.watch._observers)):
                threading.Event().wait(0.01)
        following.join(30)
    assert engines.end()
    (result,) = done
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (lines[0]["model_id"], lines[0]["status"]) == ("m", "loaded")
    assert result.exit_code == NO_SERVER
