"""What the documents say holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from write_docs import CONFIG, with_generated

from modelyard.config import load_config, validate_config
from modelyard.config.reference import render_reference

ROOT = Path(__file__).parent.parent.parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def test_the_generated_parts_are_up_to_date() -> None:
    page = CONFIG.read_text("utf-8")
    assert page == with_generated(page, render_reference()), "run: make docs"


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
