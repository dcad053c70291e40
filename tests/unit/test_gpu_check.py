"""The table of scripts/gpu_check.sh, and the configurations that it serves."""

import gpu_check
from gpu_check import CheckFailed, Row, checked, compared, config_text, split_of, table

from modelyard.config import load_config


def test_the_configurations_are_valid(tmp_path):
    models = [tmp_path / "a.gguf", tmp_path / 'b "2".gguf']
    for model in models:
        model.write_bytes(b"")
    file = tmp_path / "models.toml"
    file.write_text(config_text(models, budget_bytes=450_000_000, layers=split_of(2)))
    config = load_config(file)
    assert [model.id for model in config.models] == ["first", "second"]
    assert config.memory.budget is not None
    assert [model.device.device_layers for model in config.models] == [(4, 4), None]
    file.write_text(config_text(models[:1], layers=split_of(1)))
    assert load_config(file).models[0].device.device_layers == (8,)


def test_the_table_has_a_line_for_each_row():
    rows = [Row("build", "ok", "llama.cpp with CPU", 1.25), Row("a split", "no device", "")]
    assert table(rows).splitlines() == [
        "check    result     seconds  seen",
        "build    ok         1.2      llama.cpp with CPU",
        "a split  no device  0.0      ",
    ]


def test_a_check_that_fails_is_a_row_with_the_reason(capsys):
    def fail():
        raise CheckFailed("only these are loaded: first")

    row = checked("two models", fail)
    assert (row.verdict, row.seen) == ("failed", "only these are loaded: first")
    assert checked("split", lambda: ("no device", "")).verdict == "no device"
    assert checked("two models", lambda: "both loaded").verdict == "ok"
    assert "two models: failed" in capsys.readouterr().err


def test_memory_is_compared_with_what_was_measured():
    assert compared(1_030_000_000, 1_000_000_000) == "predicted 1,030 MB, measured 1,000 MB (+3.0%)"
    assert compared(5_000_000, 0).endswith("(nothing measured)")


def test_files_that_do_not_exist_are_refused(capsys):
    assert gpu_check.main(["/none.gguf", "/none.gguf"]) == 2
    assert "/none.gguf" in capsys.readouterr().out
