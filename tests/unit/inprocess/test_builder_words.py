"""Problems with a builder name its methods and arguments, and no tables or keys of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard import GgufModelBuilder, ModelBuilder, MultimodalModelBuilder, MultiModelBuilder, TextModelBuilder
from modelyard.config.tables import keys
from modelyard.errors import ConfigError
from modelyard.inprocess.buildable import Buildable
from modelyard.inprocess.builder_words import METHODS


def model() -> TextModelBuilder:
    return TextModelBuilder("org/a")


def several() -> MultiModelBuilder:
    return MultiModelBuilder().add_model(model())


WRONG: list[tuple[Callable[[], Buildable], str]] = [
    (lambda: model().with_max_seq_len(0), "TextModelBuilder: with_max_seq_len takes a whole number from 1 to"),
    (lambda: model().with_isq("q99"), "with_isq('q99') is not a known quantisation."),
    (lambda: model().with_quant(4).with_isq("4"), "with_quant(...) and with_isq(...) exclude each other."),
    (lambda: model().with_sampling(temprature=1), "with_sampling takes no 'temprature'. Did you mean 'temperature'?"),
    (lambda: model().with_sampling(top_p=3), "with_sampling(top_p=...) must be a number above 0 and at most 1, not 3."),
    (lambda: model().with_sampling(priority=1), "with_sampling takes no 'priority'. Use with_priority."),
    (
        lambda: model().with_pinned().with_idle_unload_seconds(4),
        "with_pinned() and with_idle_unload_seconds(...) exclude each other.",
    ),
    (lambda: model().with_draft("org/a"), "with_draft(...) names the model itself."),
    (lambda: model().with_draft("org/b"), "with_draft('org/b') is not the id or an alias of any model."),
    (lambda: model().with_aliases(""), "with_aliases(...): item 1 must be non-empty text, not ''."),
    (
        lambda: model().with_device_layers(3).with_force_cpu(),
        "with_device_layers(...) gives layers to an accelerator, and with_force_cpu() (model 1 ('org/a')) keeps",
    ),
    (
        lambda: model().with_device_layers(3).with_gpu_layers(4),
        "with_device_layers(...) and with_gpu_layers(...) exclude each other.",
    ),
    (lambda: model().with_mlock().with_mmap(is_mapped=False), "with_mlock() locks mapped files in memory"),
    (lambda: model().with_tensor_overrides("exps"), 'with_tensor_overrides takes a list of "PATTERN=PLACE"'),
    (lambda: model().with_max_num_seqs(250), "with_max_num_seqs(...) (250) and with_runtime(prefix_cache_n=...) (16)"),
    (lambda: GgufModelBuilder("org/a", "x"), "GgufModelBuilder: files 'x' must be a GGUF file"),
    (lambda: GgufModelBuilder("org/a", "x.gguf").with_isq("4"), "files and with_isq(...) exclude each other"),
    (lambda: MultimodalModelBuilder("org/a").with_mmproj("x"), "with_mmproj('x') must be a GGUF file"),
    (lambda: several().with_default_model("b"), "with_default_model('b') is not the id or an alias of any model."),
    (lambda: several().with_memory_budget("lots"), 'with_memory_budget takes a size such as "16GiB"'),
    (lambda: several().with_device_budget("CUDA0", "lots"), "with_device_budget(...): 'CUDA0' must be a size"),
    (lambda: several().with_runtime(max_seqs=300), "with_runtime(max_seqs=...) must be a whole number from 1 to 256"),
    (lambda: several().with_runtime(budget=3), "with_runtime takes no 'budget'. Use with_memory_budget."),
    (lambda: several().with_token_source("x"), "with_token_source takes cache, env:VARIABLE"),
    (lambda: several().add_model(model()), "model 1 ('org/a') and model 2 ('org/a'). Add them with add_model_with_"),
    (lambda: several().add_model(ModelBuilder("org/b").with_isq("q99")), "model 2 ('org/b'): with_isq('q99')"),
    (lambda: model().with_max_tool_rounds(0), "with_max_tool_rounds takes a whole number from 1 to 256, not 0."),
    (lambda: model().with_mcp_server("a"), "TextModelBuilder: MCP server 'a': it has neither command nor url."),
    (lambda: model().with_mcp_server("a", comand="b"), "MCP server 'a' takes no 'comand'. Did you mean 'command'?"),
    (lambda: model().with_mcp_server(None, command="b"), "MCP server 1: name must be"),  # type: ignore[arg-type]
    (
        lambda: model().with_mcp_server("a", command="b").with_mcp_server("a", command="c"),
        "TextModelBuilder: The name 'a' belongs to more than one MCP server. Give each its own.",
    ),
    (
        lambda: several().with_mcp_server("a", command="b", approval="once"),
        "MultiModelBuilder: MCP server 'a': approval must be",
    ),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_a_problem_names_the_method(wrong: Callable[[], Buildable], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        wrong().config()
    text = str(refused.value)
    assert said in text
    assert "[[" not in text
    assert "[models" not in text
    assert "[runtime" not in text
    assert "[mcp" not in text


def test_a_model_whose_files_are_unusable_is_named_in_the_words_of_its_builder(tmp_path: Path) -> None:
    (tmp_path / "a-Q4_K_M.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError) as refused:
        ModelBuilder(tmp_path).with_quant("q8_0").build()
    assert "with_quant" in str(refused.value)


def test_every_key_that_a_method_stands_for_exists_and_the_method_too() -> None:
    tables = ((), ("models",), ("models", "device"), ("models", "quantization"), ("models", "format"), ("memory",))
    known = {key for table in (*tables, ("hub",), ("models", "multimodal"), ("server",)) for key in keys(table)}
    assert set(METHODS) <= known
    builders = (MultimodalModelBuilder, MultiModelBuilder)
    assert all(any(hasattr(builder, method) for builder in builders) for method in METHODS.values())
