"""``modelyard check``: mistakes in a configuration and in the files that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.exit_codes import CONFIGURATION, MEMORY, MODEL, OK
from modelyard.config.json_schema import render_schema
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel
from support.gguf_writer import tiny_model
from support.scripted_devices import CPU, FIRST

MODEL_TABLE = "[[models]]\nmodel_id = './tiny.gguf'\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "tiny.gguf").write_bytes(tiny_model())
    return tmp_path


def check(text: str, *options: str) -> Any:
    Path("models.toml").write_text(text)
    return CliRunner().invoke(app, ["check", *options], env={"COLUMNS": "120"})


def test_a_configuration_without_mistakes_shows_its_models_and_what_they_take(folder: Path) -> None:
    result = check(MODEL_TABLE)
    assert result.exit_code == OK
    assert result.stderr == ""
    assert [line.split()[0] for line in result.stdout.splitlines()[:2]] == ["Model", "tiny"]
    assert "fits" in result.stdout
    assert "models.toml: no mistakes, 1 model" in result.stdout


def test_each_kind_of_mistake_has_its_line_and_its_exit_code(folder: Path) -> None:
    (folder / "damaged.gguf").write_text("no model")
    for text, code, said in (
        (f"{MODEL_TABLE}colour = 1\n", CONFIGURATION, "models.toml:3:1: models.'./tiny.gguf': unknown key"),
        (f"[server]\nssl_certfile = 'no.pem'\n{MODEL_TABLE}", CONFIGURATION, "models.toml:2:16: server: ssl_certfile"),
        ("[[models]]\nmodel_id = './none.gguf'\nload = 'on-demand'\n", MODEL, "models.toml:2:12: "),
        ("[[models]]\nmodel_id = './damaged.gguf'\n", MODEL, "This is not a GGUF file"),
        (f"[memory]\nbudget = '1kB'\n{MODEL_TABLE}", MEMORY, "models.toml:4:12: "),
    ):
        result = check(text)
        assert said in result.stderr
        assert result.exit_code == code


def test_a_missing_path_is_named_as_it_is_written_and_as_it_is_looked_for(folder: Path) -> None:
    result = check("[[models]]\nmodel_id = './none.gguf'\n")
    assert f"model_id './none.gguf' does not exist: there is no {folder / 'none.gguf'}." in result.stderr


def test_a_model_that_is_not_downloaded_is_not_looked_at_and_is_no_mistake(folder: Path) -> None:
    result = check("[[models]]\nmodel_id = 'org/none:Q4_K_M'\n")
    assert result.exit_code == OK
    assert "not looked at: not downloaded" in result.stdout


def test_json_is_one_document_also_where_the_configuration_is_wrong(folder: Path) -> None:
    facts = json.loads(check(f"{MODEL_TABLE}[[models]]\nmodel_id = './none.gguf'\n", "--json").stdout)
    assert facts["ok"] is False
    (problem,) = facts["problems"]
    assert (problem["line"], problem["column"], problem["key"]) == (4, 12, "models.'./none.gguf'.model_id")
    assert [model["id"] for model in facts["models"]] == ["tiny", "none"]
    assert facts["models"][0]["memory_bytes"] < facts["budget_bytes"]
    wrong = check("colour = 1\n", "--json")
    assert wrong.exit_code == CONFIGURATION
    assert [problem["line"] for problem in json.loads(wrong.stdout)["problems"]] == [None, 1]


def test_a_key_that_is_only_set_for_the_server_is_a_warning(folder: Path) -> None:
    result = check(f"[[server.keys]]\nkey_env = 'NO_SUCH_VARIABLE'\n{MODEL_TABLE}")
    assert result.exit_code == OK
    assert "NO_SUCH_VARIABLE is not set" in result.stderr


def test_models_that_do_not_fit_together_at_the_start_are_a_warning(folder: Path) -> None:
    facts = json.loads(check(MODEL_TABLE, "--json").stdout)
    budget = facts["startup_bytes"] * 3 // 2
    result = check(f"[memory]\nbudget = {json.dumps(f'{budget}B')}\n{MODEL_TABLE}{MODEL_TABLE}alias = 'b'\n")
    assert result.exit_code == OK
    assert 'load = "on-demand"' in result.stderr


def test_a_json_file_with_mcp_servers_is_checked_too(folder: Path) -> None:
    (folder / "mcp.json").write_text('{"mcpServers": {"files": {"comand": "npx"}}}')
    wrong = check(f"{MODEL_TABLE}[runtime]\nmcp_config = 'mcp.json'\n", "--json")
    assert wrong.exit_code == CONFIGURATION
    (problem,) = json.loads(wrong.stdout)["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == (str(folder / "mcp.json"), 1, 27)
    (folder / "mcp.json").write_text('{"mcpServers": {"files": {"command": "no-such-program"}}}')
    missing = check(f"{MODEL_TABLE}[runtime]\nmcp_config = 'mcp.json'\n")
    assert missing.exit_code == CONFIGURATION
    assert "MCP server 'files': command 'no-such-program' is not a program of this machine." in missing.stderr


def test_the_schema_is_printed(folder: Path) -> None:
    assert CliRunner().invoke(app, ["check", "--schema"]).stdout == render_schema()


def test_folders_and_files_of_the_server_are_looked_for_under_any_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "token").write_text("hf_x")
    result = check(f"{MODEL_TABLE}[hub]\ntoken_source = 'path:~/token'\n[server]\nimage_folders = ['{'x' * 300}']\n")
    assert result.exit_code == CONFIGURATION
    assert "there is no folder" in result.stderr
    assert "token_source" not in result.stderr


def test_a_folder_is_answered_with_what_makes_a_configuration_of_it(folder: Path) -> None:
    (folder / "models").mkdir()
    refused = CliRunner().invoke(app, ["check", "models"])
    assert refused.exit_code == CONFIGURATION
    assert "models is a folder, and check takes a configuration, which ends in .toml." in refused.stderr
    assert "modelyard init models" in refused.stderr
    (folder / "models" / "models.toml").touch()
    assert "Write: modelyard check models/models.toml" in CliRunner().invoke(app, ["check", "-f", "models"]).stderr


def test_devices_that_do_not_exist_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def listed() -> tuple[LlamaDevice, ...]:
        looks.append(None)
        return CPU, FIRST

    monkeypatch.setattr("modelyard.yard.runtime.configured_devices.may_have_accelerators", lambda: True)
    monkeypatch.setattr("modelyard.yard.runtime.configured_devices.list_devices", listed)
    for text, line in (
        (f"{MODEL_TABLE}[models.device]\ndevices = ['CUDA7']\n", 3),
        (f"{MODEL_TABLE}[memory.devices]\nCUDA7 = '50%'\n", 3),
    ):
        result = check(text)
        assert result.exit_code == CONFIGURATION
        assert f"models.toml:{line}:" in result.stderr
        assert "names the device 'CUDA7', which does not exist. There are: 0 (CUDA0)." in result.stderr
    assert check(f"{MODEL_TABLE}[models.device]\ndevices = ['cuda0']\n").exit_code == OK
    assert len(looks) == 3
    assert check(MODEL_TABLE).exit_code == OK
    assert len(looks) == 3, "listing takes seconds, and nothing is named"


def test_without_devices_their_budgets_have_no_effect(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.yard.runtime.configured_devices.may_have_accelerators", lambda: False)
    result = check(f"{MODEL_TABLE}[memory.devices]\nCUDA0 = '50%'\n")
    assert result.exit_code == OK
    assert "The budgets in [memory.devices] have no effect: there are no devices here." in result.stderr
    result = check(f"{MODEL_TABLE}[models.device]\ndevices = ['CUDA0']\n")
    assert result.exit_code == CONFIGURATION
    assert "which does not exist. There are: none." in result.stderr


def test_devices_that_cannot_be_listed_are_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[LlamaDevice, ...]:
        raise UnusableModel("They cannot be asked.")

    monkeypatch.setattr("modelyard.yard.runtime.configured_devices.may_have_accelerators", lambda: True)
    monkeypatch.setattr("modelyard.yard.runtime.configured_devices.list_devices", refuse)
    result = check(f"{MODEL_TABLE}[models.device]\ndevices = ['CUDA0']\n")
    assert result.exit_code == OK
    assert "They cannot be asked." in result.stderr


def test_a_model_that_only_a_device_has_room_for_is_no_mistake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.yard.runtime.configured_devices.may_have_accelerators", lambda: True)
    monkeypatch.setattr("modelyard.yard.runtime.configured_devices.list_devices", lambda: (CPU, FIRST))
    table = f"{MODEL_TABLE}[models.device]\nmax_seq_len = 100000\n"
    on_host = json.loads(check(table, "--json").stdout)["models"][0]["memory_bytes"]
    result = check(f"[memory]\nbudget = '{on_host - 1}B'\n{table}")
    assert result.exit_code == OK, result.stderr
    assert "of CUDA0." in result.stdout
    alone = check(f"[memory]\nbudget = '{on_host - 1}B'\n{table}cpu = true\n")
    assert alone.exit_code == MEMORY
