"""``modelyard plan`` of a configuration: what a server of it would do, shown and written down."""

from __future__ import annotations

import codecs
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app, plan_file
from modelyard.cli.exit_codes import MEMORY, MODEL, OK, USAGE
from modelyard.yard.inspection import Inspection, inspect_models
from support.gguf_writer import TENSOR_F16, TENSOR_Q8_0, U32, Tensor, gguf, model_pairs, model_tensors, tiny_model

# Larger than any tiny model with a short context, and smaller than one with all of its own.
BUDGET = "400MB"
TRAINED = 1_048_576


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    # Not the environment: huggingface_hub reads that once, when it is imported, and other tests need the network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("long", "other", "third"):
        (tmp_path / f"{name}.gguf").write_bytes(tiny_model({"llama.context_length": (U32, TRAINED)}))
    return tmp_path


def plan(text: str | None, *options: str) -> Any:
    if text is not None:
        Path("models.toml").write_text(text)
    return CliRunner().invoke(app, ["plan", *options], env={"COLUMNS": "160"})


def model(path: str, *lines: str) -> str:
    return "\n".join(("[[models]]", f'model_id = "{path}"', *lines)) + "\n"


def memory(budget: str) -> str:
    return f'# Mine.\n[memory]\nbudget = "{budget}" # as much as there is\n'


def test_the_plan_of_a_file_is_a_table_with_the_sums(folder: Path) -> None:
    text = memory(BUDGET) + model("./long.gguf", 'device.max_seq_len = "auto"') + model("./other.gguf")
    result = plan(text, "-f", "models.toml")
    assert (result.exit_code, result.stderr) == (OK, "")
    head, first, second, together, budget = result.stdout.splitlines()[:5]
    assert head.split() == ["Model", "Type", "Context", "On", "host", "Tokens/s", "Loaded"]
    assert (first.split()[0], first.split()[3]) == ("long", "host")
    assert first.endswith("at the start")
    assert "8,192" in second
    assert together.startswith("at the start, together")
    assert budget.split() == ["budget", "400", "MB"]
    assert "long: a context of " in result.stdout
    assert "so that the models that are loaded at the start fit the memory." in result.stdout
    assert result.stdout.endswith("--write writes what was chosen into the file.\n")
    assert Path("models.toml").read_text() == text


def test_a_file_is_planned_as_argument_too_and_as_json(folder: Path) -> None:
    text = memory(BUDGET) + model("./long.gguf", 'device.max_seq_len = "auto"')
    found = json.loads(plan(text, "models.toml", "--json").stdout)
    (pool,), (first,) = found["pools"], found["models"]
    assert pool["name"] == "host"
    assert 0 < pool["startup_bytes"] <= pool["budget_bytes"] == 400_000_000
    assert first["pool_bytes"] == {"host": pool["startup_bytes"]}
    assert first["is_resident"] is True
    assert first["is_fitted"] is True
    assert 4096 < first["context_length"] < TRAINED
    assert first["tokens_per_s"] > 0
    assert found["written"] is False


def test_what_was_chosen_is_written_once_and_the_rest_of_the_file_stays(folder: Path) -> None:
    text = memory(BUDGET) + model("./long.gguf", "[models.device] # here", 'max_seq_len = "auto"  # as it fits')
    result = plan(text, "models.toml", "--write")
    assert result.exit_code == OK
    written = Path("models.toml").read_text()
    length = tomllib.loads(written)["models"][0]["device"]["max_seq_len"]
    assert written == text.replace('"auto"', str(length))
    assert f'-max_seq_len = "auto"  # as it fits\n+max_seq_len = {length}  # as it fits' in result.stdout
    again = plan(None, "models.toml", "--write")
    assert Path("models.toml").read_text() == written
    assert again.stdout.endswith("models.toml has nothing to write: all that was chosen is in it.\n")


def test_a_default_that_fits_and_a_variable_are_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENGTH", "auto")
    text = memory(BUDGET) + model("./long.gguf") + model("./other.gguf", 'device.max_seq_len = "${LENGTH}"')
    assert plan(text, "models.toml", "--write").exit_code == OK
    assert Path("models.toml").read_text() == text


def test_types_are_chosen_for_all_models_together_and_written(folder: Path) -> None:
    for name in ("a", "b"):
        for label, kind in (("Q8_0", TENSOR_F16), ("Q6_K", TENSOR_Q8_0)):
            large = [Tensor(f"blk.0.more_{number}.weight", (32, 16_000), kind) for number in range(20)]
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{name}-{label}.gguf").write_bytes(gguf(model_pairs(), [*model_tensors(), *large]))
    text = "".join(model(f"./{name}", 'quantization = { quant = "auto" }') for name in ("a", "b"))
    found = json.loads(plan(memory("1GB") + text, "models.toml", "--json").stdout)
    assert [each["quant"] for each in found["models"]] == ["8", "8"]
    both = sum(each["memory_bytes"] for each in found["models"])
    result = plan(memory(f"{both - 1_000_000}B") + text, "models.toml", "--write")
    assert "b: Q6_K, the set does not fit the memory with Q8_0." in result.stdout
    written = tomllib.loads(Path("models.toml").read_text())
    assert [each["quantization"]["quant"] for each in written["models"]] == ["8", "6"]


def test_what_cannot_be_served_or_does_not_fit_has_its_exit_code(folder: Path) -> None:
    (folder / "broken.gguf").write_bytes(b"GGUF")
    result = plan(memory(BUDGET) + model("./broken.gguf") + model("./long.gguf"), "models.toml")
    assert result.exit_code == MODEL
    assert "cannot be served" in result.stdout
    assert "broken: " in result.stderr
    result = plan(memory("5MB") + model("./long.gguf"), "models.toml")
    assert result.exit_code == MEMORY
    assert "never: it does not fit" in result.stdout


def test_a_model_without_room_at_the_start_is_shown_as_such(folder: Path) -> None:
    text = memory(BUDGET) + model("./long.gguf", "device.max_seq_len = 150_000")
    text += model("./other.gguf", "device.max_seq_len = 150_000") + model("./third.gguf", 'load = "on-demand"')
    rows = plan(text, "models.toml").stdout.splitlines()
    assert rows[2].endswith("on demand: no room at the start")
    assert rows[3].endswith("on demand")


def test_a_model_of_the_hub_that_is_not_here_is_not_looked_at(folder: Path) -> None:
    result = plan(memory(BUDGET) + model("org/model", 'load = "on-demand"') + model("./long.gguf"), "models.toml")
    assert result.exit_code == OK
    assert "not looked at" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("small", "--write"), "--write is for a configuration."),
        (("-f", "models.toml", "--url", ":1234"), "A configuration is planned without a server."),
        (("small", "-f", "models.toml"), "is a configuration, and small is a model"),
    ],
)
def test_options_that_contradict_are_refused(folder: Path, options: tuple[str, ...], said: str) -> None:
    result = plan(model("./long.gguf"), *options)
    assert result.exit_code == USAGE
    assert said in result.stderr


def test_a_file_that_is_written_in_an_unusual_way_is_left_alone_with_what_to_write(folder: Path) -> None:
    models = 'models = [ { model_id = "./long.gguf", "device" . cpu = true } ]\n'
    text = f'memory.budget = "18MB"\n{models}'
    result = plan(text, "models.toml", "--write")
    assert result.exit_code not in (OK, USAGE)
    assert "Write into it yourself: long: max_seq_len = " in " ".join(result.stderr.split())
    assert Path("models.toml").read_text() == text


def test_a_file_that_changes_while_it_is_planned_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("models.toml")

    def inspect(*given: Any, **options: Any) -> Inspection:
        # Somebody puts another model before the one that is planned.
        file.write_text(model("./other.gguf") + file.read_text())
        return inspect_models(*given, **options)

    monkeypatch.setattr("modelyard.yard.inspection.inspect_models", inspect)
    text = memory(BUDGET) + model("./long.gguf", 'device.max_seq_len = "auto"')
    result = plan(text, "models.toml", "--write")
    assert result.exit_code not in (OK, USAGE)
    assert "was changed while it was planned" in result.stderr
    assert file.read_text() == model("./other.gguf") + text
    assert sorted(each.name for each in folder.glob(".models*")) == []


def test_a_byte_order_mark_a_link_and_the_permissions_of_a_file_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = memory(BUDGET) + model("./long.gguf", 'device.max_seq_len = "auto"')
    real = folder / "real.toml"
    real.write_bytes(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode())
    real.chmod(0o640)
    Path("models.toml").symlink_to(real)
    modes = []
    replace = Path.replace

    def noting(path: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noting)
    assert plan(None, "models.toml", "--write").exit_code == OK
    written = real.read_bytes()
    assert written.startswith(codecs.BOM_UTF8)
    assert written.count(b"\r\n") == written.count(b"\n") == text.count("\n")
    assert b'"auto"' not in written
    assert Path("models.toml").is_symlink()
    assert modes == [0o640]


def test_a_file_with_keys_is_never_readable_by_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    give = plan_file._give

    def noting(path: Path, status: os.stat_result) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        give(path, status)

    monkeypatch.setattr(plan_file, "_give", noting)
    text = memory(BUDGET) + model("./long.gguf", 'device.max_seq_len = "auto"')
    Path("models.toml").write_text(text)
    Path("models.toml").chmod(0o600)
    assert plan(None, "models.toml", "--write").exit_code == OK
    assert modes == [0o600]
