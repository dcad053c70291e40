"""What ``serve`` says when it is given nothing: what it takes, and what it finds on this machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

_MAX_OFFERED: Final = 5
_GGUF: Final = b"GGUF"
_TAKES: Final = (
    ("./model.gguf", "a GGUF file, or several"),
    ("./models", "a folder: each model in it, loaded when it is asked for"),
    ("org/name:Q4_K_M", "a repository of the Hugging Face Hub"),
    ("ollama:llama3.2", "a model that Ollama has on this machine"),
    ("models.toml", "a configuration"),
    ("--discover", "every model that other programs have on this machine"),
)


def nothing_given(folder: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Return the message for ``serve`` without a model: the forms of a model, and commands for those that are here."""
    width = max(len(form) for form, _ in _TAKES)
    lines = ["No model is given. Name what is to be served:"]
    lines += [f"  modelyard serve {form:<{width}}  {meaning}" for form, meaning in _TAKES]
    if found := list(_found(folder, environ)):
        lines += ["Found on this machine:", *(f"  modelyard serve {shlex.quote(name)}" for name in found)]
    return "\n".join(lines)


def _found(folder: Path, environ: Mapping[str, str]) -> Iterator[str]:
    from modelyard.hub.sources.demo_models import whole_demo_models
    from modelyard.hub.sources.ollama_store import list_ollama_models

    yield from _configs(folder)
    yield from sorted(f"./{path.name}" for path in folder.glob("*.gguf") if _is_gguf(path))[:_MAX_OFFERED]
    yield from (f"ollama:{name}" for name in list_ollama_models(environ)[:_MAX_OFFERED])
    yield from map(str, whole_demo_models())


def _is_gguf(path: Path) -> bool:
    try:
        # A named pipe would never be opened.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_GGUF)) == _GGUF
    except OSError:
        return False  # not offered, which is all that follows


def _configs(folder: Path) -> Iterator[str]:
    """Yield the names of the TOML files in the folder that describe models."""
    from modelyard.config.bounded_read import NotReadable, read_regular

    for path in sorted(folder.glob("*.toml")):
        try:
            is_ours = b"[[models]]" in read_regular(path)
        except (OSError, NotReadable):
            continue  # not offered, which is all that follows
        if is_ours:
            yield path.name
