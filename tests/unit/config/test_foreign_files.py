"""Files of other tools: recognised, with what to do."""

import pytest

from modelyard.config import load_config
from modelyard.errors import ConfigError

SWAP = "models:\n  qwen:\n    cmd: llama-server -m qwen.gguf\n    ttl: 60\n"
MODELFILE = 'FROM ./qwen.gguf\nPARAMETER num_ctx 4096\nSYSTEM """You = kind."""\n'
PRESET = "version = 1\n[*]\nn-gpu-layers = 99\n[qwen]\nhf-repo = org/qwen\nctx-size = 8192\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SWAP, ("llama-swap", "idle_unload_seconds")),
        ("server:\n  port: 1\nmodels:\n  - a: b\n", ("YAML", "key = value")),
        (MODELFILE, ("Modelfile", "max_seq_len")),
        (PRESET, ("INI", "max_seq_len")),
        ('{"models": []}', ("JSON", "key = value")),
        ("GGUF\x03\x00", ("a model", "modelyard serve")),
    ],
)
@pytest.mark.parametrize("name", ["models.toml", "models.yaml", "Modelfile"])
def test_a_file_of_another_tool_says_how_to_write_it_here(tmp_path, text, said, name):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    (problem,) = refused.value.problems
    assert all(word in str(problem) for word in said)


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb = 2\n[[models]]\nmodel_id = 'x'\n", "[[models]]\nmodel_id = x\n", '[server]\nhost = "a\n', "# only\nx\n"],
)
def test_toml_with_mistakes_stays_toml(tmp_path, text):
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert all(problem.line for problem in refused.value.problems)
