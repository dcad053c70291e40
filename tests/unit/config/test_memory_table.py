"""The memory table, and the keys that allow a model to be unloaded."""

from pathlib import Path

import pytest

from modelyard.config import load_config, validate_config
from modelyard.config.sizes import read_budget, read_size
from modelyard.config.wording import shown
from modelyard.errors import ConfigError


def config(memory=None, base=None, **model):
    return validate_config({"memory": memory or {}, "models": [{"model_id": "smol", **model}]}, base=base)


def problem(memory=None, **model):
    with pytest.raises(ConfigError) as refused:
        config(memory, **model)
    (only,) = refused.value.problems
    return str(only)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("500MB", 500_000_000),
        ("16GiB", 16 * 2**30),
        ("1.5 GiB", 1_610_612_736),
        ("1.005KB", 1005),
        ("1.2345KB", 1234),
        ("2gib", 2 * 2**30),
        ("1TB", 10**12),
        ("3 kb", 3000),
    ],
)
def test_a_size_is_a_number_with_a_unit(text, size):
    assert read_size(text) == read_budget(text) == size


@pytest.mark.parametrize("text", ["", "16", "GiB", "0GB", "-1GB", "16G", "1e9B", "16 gigabytes", "0.1B"])
def test_another_text_is_no_size(text):
    with pytest.raises(ValueError, match="a size such as"):
        read_size(text)


def test_a_budget_may_be_a_part_of_the_machine():
    assert config({"budget": 0.5}).memory.budget == 0.5
    assert config({"budget": 1}).memory.budget == 1.0
    assert config({"budget": "50 %"}).memory.budget == config({"budget": "50%"}).memory.budget == 0.5
    assert config({"budget": "16GiB"}).memory.budget == 16 * 2**30
    assert config().memory.budget is None


@pytest.mark.parametrize("budget", [0, 1.5, -1, True, "lots", "150%", "0%"])
def test_another_budget_is_refused_with_an_example(budget):
    expected = 'a size such as "16GiB", a part such as "50%", or a number above 0 and at most 1'
    assert problem({"budget": budget}) == f"[memory]: budget must be {expected}, not {shown(budget)}."


def test_devices_have_budgets_by_name_or_number():
    assert config({"devices": {"CUDA0": "20GiB", "1": "80%", "Vulkan0": 0.5}}).memory.devices == (
        ("CUDA0", 20 * 2**30),
        ("1", 0.8),
        ("Vulkan0", 0.5),
    )
    assert config({"devices": {1: 0.8}}).memory.devices == (("1", 0.8),)
    assert config().memory.devices == ()


@pytest.mark.parametrize("budget", [0, 1.5, 5000, True, "lots", "150%", None, {}])
def test_another_budget_of_a_device_is_refused_with_an_example(budget):
    expected = 'a size such as "16GiB", a part such as "50%", or a number above 0 and at most 1'
    refused = f"[memory]: devices: 'CUDA0' must be {expected}, not {shown(budget)}."
    assert problem({"devices": {"CUDA0": budget}}) == refused


@pytest.mark.parametrize("text", ["[memory.devices]\nCUDA0 = -5", "[memory]\ndevices = { CUDA0 = -5 }"])
def test_a_refused_budget_in_a_file_names_its_table_once(tmp_path, text):
    file = tmp_path / "models.toml"
    file.write_text(f'{text}\n[[models]]\nmodel_id = "m.gguf"\n')
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert ": memory: devices: 'CUDA0' must be a size such as" in str(refused.value)


def test_a_device_has_one_budget():
    refused = "[memory]: devices: 'CUDA0' and 'cuda0' are the same device. Keep one of them."
    assert problem({"devices": {"CUDA0": 0.5, "cuda0": 0.6}}) == refused
    assert problem({"devices": {" ": 0.5}}).startswith("[memory]: devices: a name is empty. Name a device as")
    assert problem({"devices": ["CUDA0"]}).endswith('such as { CUDA0 = "20GiB", 1 = "80%" }, not a list.')


def test_prompts_are_kept_in_the_users_cache_unless_a_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config().memory.kv_folder == tmp_path / "modelyard" / "kv"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert config().memory.kv_folder == Path("~/.cache/modelyard/kv").expanduser()
    assert config({"kv_dir": "kept"}, base=tmp_path).memory.kv_folder == tmp_path / "kept"


def test_one_gib_is_kept_unless_something_else_is_said():
    assert config().memory.kv_keep_bytes == 2**30
    assert config({"kv_keep": "memory", "kv_keep_bytes": "2GB"}).memory.kv_keep_bytes == 2 * 10**9
    assert config({"kv_keep_bytes": 5_000_000}).memory.kv_keep_bytes == 5_000_000
    refused = '[memory]: kv_keep_bytes must be a size such as "2GiB", or a number of bytes, not 0.'
    assert problem({"kv_keep_bytes": 0}) == refused


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "idle_unload_seconds",
            -1,
            'a number of seconds of at least 0, or a duration such as "90s", "10m" or "1h30m", not -1',
        ),
        ("priority", 101, "a whole number from -100 to 100, not 101"),
    ],
)
def test_how_a_model_goes_has_bounds(key, value, expected):
    assert problem(**{key: value}) == f"[[models]] 1 ('smol'): {key} must be {expected}."


def test_a_pinned_model_cannot_go_when_it_is_idle():
    found = problem(pinned=True, idle_unload_seconds=5)
    assert found == "[[models]] 1 ('smol'): pinned and idle_unload_seconds exclude each other. Keep one of them."
