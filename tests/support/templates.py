"""The chat templates of llama.cpp's own tests, which are installed with its converter."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from modelyard.hub.sources.llama_converter import INSTALL, converter_folder


def template_folder() -> Path:
    """Return the folder with a file for each template, by name of the model.

    Source: llama.cpp, models/templates, in the source archive of the engine.
    """
    folder = converter_folder() / "models" / "templates"
    assert folder.is_dir(), f"The templates are installed with the converter: {INSTALL}"
    return folder


@cache
def templates() -> dict[str, str]:
    """Return the source of each template by name, such as "Qwen-Qwen3-0.6B"."""
    return {path.stem: path.read_text("utf-8") for path in sorted(template_folder().glob("*.jinja"))}
