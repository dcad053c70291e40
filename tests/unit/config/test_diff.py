"""What is different between two configurations."""

import pytest

from modelyard.config import validate_config
from modelyard.config.diff import ConfigDiff, diff

NOTHING = ConfigDiff((), (), {}, {}, (), ())
SMOL = {"model_id": "org/smol", "alias": "smol"}
GEMMA = {"model_id": "org/gemma", "alias": "gemma"}


def config(*models, **tables):
    return validate_config({"models": list(models), **tables})


def test_the_same_configuration_differs_in_nothing():
    assert diff(config(SMOL, GEMMA), config(GEMMA, SMOL)) == NOTHING


def test_models_come_and_go_by_their_ids():
    changes = diff(config(SMOL, GEMMA), config(SMOL, {**GEMMA, "alias": "gem"}))
    assert (changes.added, changes.removed, changes.changed) == (("gem",), ("gemma",), {})


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"model_id": "org/other"}, ("model_id",)),
        ({"device": {"max_seq_len": 512}}, ("device",)),
        ({"sampling": {"temperature": 0.0}}, ("sampling",)),
        ({"quantization": {"quant": "4"}}, ("quantization",)),
        ({"device": {"cpu": True}}, ("cpu", "device")),
    ],
)
def test_what_an_engine_depends_on_changes_its_model(change, keys):
    changes = diff(config(SMOL), config({**SMOL, **change}))
    assert changes.changed == {"smol": keys}
    assert changes.retuned == {}


@pytest.mark.parametrize(
    "change",
    [
        {"pinned": True},
        {"priority": 5},
        {"idle_unload_seconds": 5},
        {"load": "on-demand"},
        {"aliases": ["tiny"]},
        {"mcp": []},
    ],
)
def test_what_only_concerns_the_treatment_of_a_model_needs_no_other_engine(change):
    changes = diff(config(SMOL), config({**SMOL, **change}))
    assert changes == ConfigDiff((), (), {}, {"smol": tuple(change)}, (), ())


def test_mcp_servers_change_by_their_names_and_concern_no_engine(tmp_path):
    (tmp_path / "a.json").write_text('{"mcpServers": {"git": {"command": "git"}}}')
    servers = [{"name": "files", "command": "a"}, {"name": "web", "command": "b"}]
    old = config(SMOL, mcp={"servers": servers})
    new = config(
        SMOL,
        mcp={"servers": [servers[0], {"name": "web", "command": "c"}], "tool_timeout": 5, "serve": False},
        runtime={"mcp_config": str(tmp_path / "a.json")},
        server={"max_tool_rounds": 3},
    )
    assert diff(old, new) == ConfigDiff(
        (), (), {}, {}, (), ("mcp.serve",), ("tool_timeout", "servers.web", "servers.git")
    )


def test_what_holds_for_all_engines_changes_all_models():
    assert set(diff(config(SMOL, GEMMA), config(SMOL, GEMMA, runtime={"max_seqs": 2})).changed) == {"smol", "gemma"}
    kept = diff(config(SMOL), config(SMOL, memory={"kv_keep": "memory"}))
    assert (kept.changed, kept.memory) == ({"smol": ("memory.kv_keep",)}, ("kv_keep",))


def test_a_model_with_an_isolation_of_its_own_is_not_concerned_by_that_of_all_models():
    old, new = (
        config(SMOL, {**GEMMA, "isolation": "thread"}, runtime={"isolation": isolation})
        for isolation in ("auto", "process")
    )
    assert diff(old, new).changed == {"smol": ("isolation",)}


def test_an_isolation_needs_another_engine_where_it_differs_in_effect():
    assert diff(config(SMOL), config({**SMOL, "isolation": "process"})).changed == {"smol": ("isolation",)}
    found = diff(config(SMOL), config({**SMOL, "isolation": "auto"}))
    assert (found.changed, found.retuned) == ({}, {"smol": ("isolation",)})


def test_a_budget_changes_no_model():
    assert diff(config(SMOL), config(SMOL, memory={"budget": 0.5})) == ConfigDiff((), (), {}, {}, ("budget",), ())


def test_what_a_process_cannot_change_is_named():
    changes = diff(config(SMOL), config(SMOL, server={"port": 1, "api_keys": ["k"]}, command="run"))
    assert changes.server == ("port", "api_keys", "command")


def test_what_a_process_cannot_change_is_compared_with_what_it_was_started_with():
    started, edited = config(SMOL, server={"port": 1}), config(SMOL, server={"port": 2})
    assert diff(edited, edited, started).server == ("port",), "it still waits for the next start"
    assert diff(edited, started, started) == NOTHING, "it was taken back"


def test_budgets_concern_no_engine():
    old = config(SMOL, memory={"budget": 0.5, "devices": {"CUDA0": 0.5}})
    changes = diff(old, config(SMOL, memory={"budget": 0.5, "devices": {"CUDA0": 0.8}}))
    assert changes == ConfigDiff((), (), {}, {}, ("devices",), ())
