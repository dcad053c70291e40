"""What the documents say holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from write_docs import GENERATED, with_generated

from modelyard.config import load_config, read_keys, validate_config

ROOT = Path(__file__).parent.parent.parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_the_generated_parts_are_up_to_date(path: Path) -> None:
    page = path.read_text("utf-8")
    assert page == with_generated(page, GENERATED[path]()), "run: make docs"


def test_the_configuration_of_keys_is_valid() -> None:
    example, *_ = blocks("docs/operations.md", "toml")
    models = [{"model_id": "small.gguf", "alias": "small"}]
    config = validate_config({**tomllib.loads(example), "models": models}, source="docs/operations.md")
    keys = read_keys(config, {"CI_KEY": "x"})
    assert [key.name for key in keys] == ["api-key-1", "alice", "ci", "prometheus"]


def test_the_configuration_of_a_network_is_valid() -> None:
    _, *examples = blocks("docs/operations.md", "toml")
    models = [{"model_id": "small.gguf"}]
    proxied, encrypted = (validate_config({**tomllib.loads(example), "models": models}) for example in examples)
    assert proxied.server.trusted_proxies == ("127.0.0.1", "10.0.0.0/8")
    assert encrypted.server.ssl_certfile is not None


def test_the_readmes_configuration_is_valid() -> None:
    first, second = (
        validate_config(tomllib.loads(example), source="README.md") for example in blocks("README.md", "toml")
    )
    assert [model.id for model in first.models] == ["Qwen/Qwen3-4B", "google/gemma-4-E4B-it"]
    assert [model.id for model in second.models] == ["small", "large"]


def test_the_demo_configuration_is_valid() -> None:
    assert load_config(ROOT / "examples" / "demo.toml").default_model_id == "smollm2"


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
