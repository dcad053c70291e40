"""Builders say what a configuration file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from modelyard import (
    ConfigFile,
    EmbeddingModelBuilder,
    GgufModelBuilder,
    IsqType,
    ModelBuilder,
    MultimodalModelBuilder,
    MultiModelBuilder,
    TextModelBuilder,
    from_config,
)
from modelyard.config import ISQ_NAMES, default_model, validate_config
from modelyard.config.names import Kind
from modelyard.errors import ConfigError
from modelyard.inprocess.model_table import model_table

GUIDE = {
    "default_model_id": "Qwen/Qwen3-4B",
    "models": [
        {"model_id": "Qwen/Qwen3-4B", "kind": "text", "quantization": {"isq": "q4k"}},
        {
            "model_id": "google/gemma-4-E4B-it",
            "alias": "gemma-vision",
            "kind": "multimodal",
            "quantization": {"isq": "q4k"},
        },
    ],
}


def test_the_guides_example_is_what_its_configuration_file_is() -> None:
    builder = (
        MultiModelBuilder()
        .add_model(TextModelBuilder("Qwen/Qwen3-4B").with_isq(IsqType.Q4K))
        .add_model_with_alias("gemma-vision", MultimodalModelBuilder("google/gemma-4-E4B-it").with_isq(IsqType.Q4K))
        .with_default_model("Qwen/Qwen3-4B")
    )
    assert builder.config() == validate_config(GUIDE)


def test_the_first_model_is_the_default_unless_another_is_named() -> None:
    builder = MultiModelBuilder().add_model_with_alias("a", ModelBuilder("org/a")).add_model(ModelBuilder("org/b"))
    assert default_model(builder.config()) == "a"
    assert default_model(builder.with_default_model("org/b").config()) == "org/b"


def test_every_isq_type_of_the_reference_is_a_level_that_the_configuration_knows() -> None:
    assert {str(isq) for isq in IsqType} <= set(ISQ_NAMES)
    assert {name for name in ISQ_NAMES if not name.isdecimal()} == {str(isq) for isq in IsqType}


@pytest.mark.parametrize("make", [TextModelBuilder, MultimodalModelBuilder, EmbeddingModelBuilder, ModelBuilder])
def test_each_kind_has_its_builder(make: type[ModelBuilder]) -> None:
    (model,) = make("org/model").config().models
    assert model.kind in get_args(Kind)
    assert (model.kind == "auto") == (make is ModelBuilder)


def test_what_is_said_of_a_model_arrives(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("")
    builder = (
        MultimodalModelBuilder("org/model")
        .with_quant(4)
        .with_dtype("f16")
        .with_chat_template(template)
        .with_force_cpu()
        .with_max_seq_len(512)
        .with_max_num_seqs(2)
        .with_sampling(temperature=0.5, top_p=0.9)
        .with_aliases("one", "two")
        .with_load("on-demand")
        .with_pinned()
        .with_priority(3)
        .with_mmproj("mmproj.gguf")
        .with_max_edge(512)
    )
    (model,) = builder.config().models
    assert (model.quantization.quant, model.dtype, model.chat_template) == ("4", "f16", template)
    assert (model.device.cpu, model.device.max_seq_len, model.device.max_batch_size) == (True, 512, 2)
    assert (model.sampling.temperature, model.sampling.top_p) == (0.5, 0.9)
    assert (model.names, model.load, model.pinned, model.priority) == (
        ("org/model", "one", "two"),
        "on-demand",
        True,
        3,
    )
    assert (model.format.mmproj, model.multimodal.longest_edge) == ("mmproj.gguf", 512)


def test_files_are_named_one_by_one() -> None:
    (model,) = GgufModelBuilder("org/model", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]).config().models
    assert model.format.quantized_files == ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    (model,) = GgufModelBuilder("org/model", "m.gguf").config().models
    assert model.format.quantized_files == ("m.gguf",)


def test_all_that_cannot_be_is_said_at_once() -> None:
    wrong = (
        MultiModelBuilder()
        .add_model(TextModelBuilder("org/a").with_isq("q99"))
        .add_model(TextModelBuilder("org/a"))
        .with_default_model("b")
    )
    with pytest.raises(ConfigError) as refused:
        wrong.config()
    said = str(refused.value)
    assert "with_isq('q99') is not a known quantisation" in said
    assert "'org/a' belongs to more than one model" in said
    assert "with_default_model('b')" in said


def test_nothing_is_no_yard() -> None:
    with pytest.raises(ConfigError, match="add at least one with add_model"):
        MultiModelBuilder().build()


def test_a_configuration_file_is_built_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[[models]]\nmodel_id = "./small.gguf"\nalias = "small"\n')
    builder = from_config(file)
    assert isinstance(builder, ConfigFile)
    assert builder.config().models[0].source == str(tmp_path / "small.gguf")
    with pytest.raises(ConfigError, match="There is no such file"):
        from_config(tmp_path / "other.toml").build()


FILES: dict[str, Any] = {"command": "npx", "args": ["-y", "server-filesystem", "/tmp"]}


def test_mcp_servers_are_those_of_a_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"files": {"command": "npx", "args": ["-y", "server-filesystem", "/tmp"]}}}')
    expected = validate_config(
        {
            "mcp": {"servers": [{"name": "files", **FILES}], "tool_timeout": 5},
            "server": {"max_tool_rounds": 4},
            "models": [{"model_id": "org/a"}],
        }
    )
    mistralrs = {
        "servers": [{"name": "files", "tool_prefix": "files", "source": {"type": "Process", **FILES}}],
        "auto_register_tools": True,
        "tool_timeout_secs": 5,
    }
    timed = {"servers": [], "auto_register_tools": True, "tool_timeout_secs": 5}
    for builder in (
        ModelBuilder("org/a").with_mcp_config(path).with_mcp_config(timed),
        ModelBuilder("org/a").with_mcp_config({"mcpServers": {"files": FILES}}).with_mcp_config(timed),
        ModelBuilder("org/a").with_mcp_server("files", **FILES).with_mcp_config(timed),
    ):
        config = builder.with_max_tool_rounds(4).config()
        assert (config.mcp, config.server) == (expected.mcp, expected.server)
    (server,) = ModelBuilder("org/a").with_mcp_config(mistralrs).config().mcp.servers
    assert (server.name, server.command, server.args) == ("files", "npx", tuple(FILES["args"]))


def test_mcp_servers_of_one_model_are_its_own() -> None:
    search = {"url": "http://localhost:9/mcp"}
    builder = (
        MultiModelBuilder()
        .add_model_with_alias("a", ModelBuilder("org/a").with_mcp_server("files", **FILES))
        .add_model_with_alias("b", ModelBuilder("org/b").with_mcp_server("files", **FILES))
        .add_model_with_alias("c", ModelBuilder("org/c"))
        .with_mcp_server("search", **search)
        .with_max_tool_rounds(2)
    )
    config = builder.config()
    assert [server.name for server in config.mcp.servers] == ["search", "files"]
    assert [model.mcp for model in config.models] == [("search", "files"), ("search", "files"), ("search",)]
    assert config.server.max_tool_rounds == 2
    shared = MultiModelBuilder().add_model(ModelBuilder("org/a")).with_mcp_server("files", **FILES).config()
    assert shared.models[0].mcp is None


@pytest.mark.parametrize(
    ("of_model", "says"),
    [
        (lambda: ModelBuilder("org/b").with_mcp_server("files", command="other"), "Two MCP servers are named 'files'"),
        (lambda: ModelBuilder("org/b").with_max_tool_rounds(2), "with_max_tool_rounds holds for all models"),
        (
            lambda: ModelBuilder("org/b").with_mcp_config(
                {"servers": [], "auto_register_tools": True, "tool_timeout_secs": 5}
            ),
            r"'tool_timeout' of \[mcp\] holds for all models",
        ),
    ],
)
def test_what_holds_for_all_models_is_not_said_by_one(of_model: Callable[[], ModelBuilder], says: str) -> None:
    builder = MultiModelBuilder().add_model(ModelBuilder("org/a")).with_mcp_server("files", **FILES)
    with pytest.raises(ConfigError, match=says):
        builder.add_model(of_model()).config()
    with pytest.raises(ConfigError, match="belong to what is built first"):
        model_table(of_model(), None)


@pytest.mark.parametrize(
    ("configured", "says"),
    [
        (lambda: ModelBuilder("org/a").with_mcp_config("/nowhere/mcp.json"), "There is no such file"),
        (lambda: ModelBuilder("org/a").with_mcp_config({"mcpServers": {"a": {"comand": "x"}}}), "comand"),
        (lambda: ModelBuilder("org/a").with_mcp_config(3), "with_mcp_config takes the path of a JSON file"),
        (lambda: ModelBuilder("org/a").with_mcp_server("a").config(), "neither command nor url"),
        (lambda: ModelBuilder("org/a").with_mcp_server("a", comand="x").config(), "comand"),
        (lambda: ModelBuilder("org/a").with_max_tool_rounds(0).config(), "max_tool_rounds"),
        (
            lambda: ModelBuilder("org/a").with_mcp_server("a", command="x").with_mcp_server("a", command="y").config(),
            "'a'",
        ),
    ],
)
def test_mcp_servers_that_cannot_be_used_are_refused(configured: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        configured()


def test_a_mapping_of_mcp_servers_is_read_as_a_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEARCH_KEY", "hush")
    given = {
        "mcpServers": {"a": {"command": "x", "args": ("1", "2"), "cwd": tmp_path, "env": {"KEY": "${SEARCH_KEY}"}}}
    }
    (server,) = ModelBuilder("org/a").with_mcp_config(given).config().mcp.servers
    assert (server.args, server.cwd) == (("1", "2"), tmp_path)
    assert server.env[0][1].get_secret_value() == "hush"
    with pytest.raises(ConfigError, match="the environment variable NO_SUCH_KEY is not set"):
        ModelBuilder("org/a").with_mcp_config({"mcpServers": {"a": {"command": "${NO_SUCH_KEY}"}}})
    with pytest.raises(ConfigError, match="object is no part of JSON"):
        ModelBuilder("org/a").with_mcp_config({"mcpServers": {"a": {"command": object()}}})


def test_a_variable_that_is_not_set_is_reported_with_its_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {\n"a": {"command": "${NO_SUCH_COMMAND}"}}}')
    with pytest.raises(ConfigError, match=r"mcp\.json:2:18: mcpServers\.a: the environment variable NO_SUCH_COMMAND"):
        ModelBuilder("org/a").with_mcp_config(path)


def test_no_secret_of_an_mcp_server_is_shown() -> None:
    builder = ModelBuilder("org/a").with_mcp_server("a", url="https://example.org", headers={"X-Key": "hush"})
    assert "hush" not in repr(builder) + repr(builder.mcp()) + repr(builder.config())
