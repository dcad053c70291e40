"""Loads the model of a chat, and shows a bar meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from modelyard.cli.chat.client import Client, ModelEntry
from modelyard.errors import UnsupportedOperation

# Seconds between two looks at the progress of a load, at first and at last: the server logs each of them.
_FIRST_PAUSE_S: Final = 0.2
_LAST_PAUSE_S: Final = 2.0

_OTHER_KINDS: Final = {
    "embedding": "is an embedding model, served at /v1/embeddings",
    "rerank": "is a reranker, served at /v1/rerank",
}


def load_visibly(client: Client, model: ModelEntry, console: Console) -> ModelEntry:
    """Load a model unless it is loaded, and return its status then.

    Raises:
        ServerUnusable: the load failed.
        UnsupportedOperation: the model generates no text.
    """
    _check_makes_text(model)
    if model.status == "loaded":
        return model
    pending = client.begin_load(model.id)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(f"Loading {model.id}", total=1.0)
            waits = pauses()
            while (loading := pending.wait(next(waits))) is not None:
                step = str(loading.fields.get("stage", "loading")).capitalize()
                progress.update(bar, description=f"{step} {model.id}", completed=loading.fields.get("progress", 0.0))
    finally:
        pending.cancel()
    loaded = client.model(model.id)
    _check_makes_text(loaded)
    return loaded


def pauses() -> Iterator[float]:
    """Yield the seconds between looks at a load that goes on: longer and longer ones, to a limit."""
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(1.25 * pause_s, _LAST_PAUSE_S)


def _check_makes_text(model: ModelEntry) -> None:
    if not model.makes_text:
        does = _OTHER_KINDS.get(model.fields.get("kind", ""), "is of another kind")
        raise UnsupportedOperation(f"The model '{model.id}' {does}: it generates no text.", "model")
