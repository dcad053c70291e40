"""The table of scripts/gpu_check.sh, and the configurations that it serves."""

import signal
from pathlib import Path

import gpu_check
import pytest
import tiny_experts
from checked_server import CheckFailed
from gpu_check import (
    Device,
    Machine,
    OutOfTime,
    Row,
    checked,
    compared,
    config_text,
    crowded,
    is_as_predicted,
    memory_row,
    split_of,
    table,
)

from modelyard.config import Config, load_config
from modelyard.formats.gguf.read import read_header
from support.gguf_writer import tiny_model, write

MB = 1_000_000


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {"first": write(tmp_path / "a.gguf", b""), "second": write(tmp_path / 'b "2".gguf', b"")}


def loaded_config(folder: Path, text: str) -> Config:
    file = folder / "models.toml"
    file.write_text(text)
    return load_config(file)


def test_the_configurations_are_valid(tmp_path: Path, models: dict[str, Path]) -> None:
    keys = {"first": {"device_layers": split_of(2)}, "second": {"devices": ["CUDA0"], "n_gpu_layers": 999}}
    text = config_text(models, budgets={"CUDA0": 450 * MB, "host": 900 * MB}, device=keys)
    config = loaded_config(tmp_path, text)
    assert [model.id for model in config.models] == ["first", "second"]
    assert (config.memory.budget, config.memory.devices) == (900 * MB, (("CUDA0", 450 * MB),))
    assert [model.device.device_layers for model in config.models] == [(4, 4), None]
    assert config.models[1].device.devices == ("CUDA0",)
    single = config_text({"first": models["first"]}, device={"first": {"device_layers": split_of(1)}})
    assert loaded_config(tmp_path, single).models[0].device.device_layers == (8,)


@pytest.mark.parametrize(
    ("devices", "bounded"), [((), ("host",)), ((Device("CUDA0", 0), Device("CUDA1", 0)), ("CUDA0",))]
)
def test_a_crowded_memory_has_room_for_the_larger_model_alone(
    devices: tuple[Device, ...], bounded: tuple[str, ...], tmp_path: Path, models: dict[str, Path]
) -> None:
    machine = Machine(tmp_path, models, devices, needed={"first": 200 * MB, "second": 500 * MB})
    memory = loaded_config(tmp_path, crowded(machine)).memory
    budgets = {**dict(memory.devices), **({"host": memory.budget} if memory.budget else {})}
    assert tuple(budgets) == bounded
    assert all(500 * MB < budget < 700 * MB for budget in budgets.values())
    with pytest.raises(CheckFailed, match="not known"):
        crowded(Machine(tmp_path, models, devices))


def test_the_table_has_a_line_for_each_row() -> None:
    rows = [Row("build", "ok", "llama.cpp with CPU", 1.25), Row("a split", "no device", "")]
    assert table(rows).splitlines() == [
        "check    result     seconds  seen",
        "build    ok         1.2      llama.cpp with CPU",
        "a split  no device  0.0      ",
    ]


def test_a_check_that_fails_is_a_row_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise CheckFailed("only these are loaded: first")

    row = checked("two models", fail)
    assert (row.verdict, row.seen) == ("failed", "only these are loaded: first")
    assert checked("split", lambda: ("no device", "")).verdict == "no device"
    assert checked("two models", lambda: "both loaded").verdict == "ok"
    assert "two models: failed" in capsys.readouterr().err


def test_the_rows_until_then_are_printed_when_the_time_is_up(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_until_then(rows: list[Row], _: object) -> None:
        rows.append(Row("build", "ok", "llama.cpp"))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(gpu_check, "add_rows", run_until_then)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert gpu_check.main([str(path) for path in models.values()]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("build   ok")
    assert lines[2].startswith("doctor  failed  0.0      the time was up")


def test_running_out_of_time_is_no_row_of_a_check() -> None:
    def wait() -> str:
        raise OutOfTime

    with pytest.raises(OutOfTime):
        checked("build", wait)


def test_memory_is_compared_with_what_was_measured() -> None:
    assert compared(1_030_000_000, 1_000_000_000) == "predicted 1,030 MB, measured 1,000 MB (+3.0%)"
    assert compared(5_000_000, 0).endswith("(nothing measured)")
    assert is_as_predicted(1029 * MB, 1000 * MB)
    assert not is_as_predicted(1031 * MB, 1000 * MB)
    assert is_as_predicted(12 * MB, 10 * MB)
    assert not is_as_predicted(15 * MB, 0)


def test_one_load_that_took_more_than_predicted_fails_the_row(tmp_path: Path, models: dict[str, Path]) -> None:
    machine = Machine(tmp_path, models, (Device("CUDA0", 0),))
    with pytest.raises(CheckFailed, match="nothing was loaded on a device"):
        memory_row(machine)
    machine.loads.append(("first", {"CUDA0": 100 * MB, "host": MB}, {"CUDA0": 101 * MB}))
    assert memory_row(machine) == ("ok", "first on CUDA0: predicted 100 MB, measured 101 MB (-1.0%)")
    machine.loads.append(("split", {"CUDA0": 100 * MB, "host": MB}, {"CUDA0": 100 * MB, "CUDA1": 50 * MB}))
    verdict, seen = memory_row(machine)
    assert verdict == "failed"
    assert seen.endswith("split on CUDA1: predicted 0 MB, measured 50 MB (-100.0%)")
    assert memory_row(Machine(tmp_path, models))[0] == "no device"


def test_files_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["/none.gguf", "/none.gguf"]) == 2
    assert "/none.gguf" in capsys.readouterr().out


def test_a_tiny_model_with_experts_has_the_vocabulary_of_another(tmp_path: Path) -> None:
    source = write(tmp_path / "tiny.gguf", tiny_model())
    made = tiny_experts.make(source, tmp_path / "experts.gguf")
    header, other = read_header(made), read_header(source)
    assert header.metadata["tokenizer.ggml.tokens"] == other.metadata["tokenizer.ggml.tokens"]
    assert (header.architecture, header.block_count) == ("llama", tiny_experts.LAYERS)
    experts = sum(tensor.size_bytes for tensor in header.tensors if "_exps" in tensor.name)
    assert experts == tiny_experts.EXPERT_BYTES
