"""What each model does, and the error for a request that asks for something else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from modelyard.errors import ModelyardError, UnsupportedOperation
from modelyard.hub import Kind, Modalities
from modelyard.yard.runtime.engine_factory import EngineFactory

# Seconds that a request waits for the files of its model to be read. After that it goes on unchecked, and the engine
# refuses what it cannot do.
READ_TIMEOUT_S: Final = 1.0

Task = Literal["text", "embedding", "rerank"]

_TASKS: Final[Mapping[Kind, Task]] = MappingProxyType(
    {"text": "text", "multimodal": "text", "embedding": "embedding", "rerank": "rerank"}
)
_DOES: Final[Mapping[Task, str]] = MappingProxyType(
    {
        "text": "generates text",
        "embedding": "is an embedding model, served at /v1/embeddings",
        "rerank": "is a reranker, served at /v1/rerank",
    }
)
_DOES_NOT: Final[Mapping[Task, str]] = MappingProxyType(
    {"text": "generates no text", "embedding": "makes no embeddings", "rerank": "ranks no documents"}
)


class Capabilities:
    """What models do, by their names in the residency; their files are read on demand.

    Args:
        factory: reads the files of models.
    """

    def __init__(self, factory: EngineFactory) -> None:
        self._factory = factory
        self._reads: dict[str, asyncio.Task[None]] = {}

    async def kind_of(self, model: str) -> Kind | None:
        """Return the kind of a model; None where reading its files takes too long."""
        if self._factory.known.kind(model) is None:
            await self._wait_for_files(model)
        return self._factory.known.kind(model)

    async def modalities(self, model: str) -> Modalities | None:
        """Return what a model takes beside text; None where reading its files takes too long."""
        if self._factory.known.modalities(model) is None:
            await self._wait_for_files(model)
        return self._factory.known.modalities(model)

    async def _wait_for_files(self, model: str) -> None:
        """Have the files of a model read, and wait for that for at most READ_TIMEOUT_S."""
        if model not in self._factory.specs or self._factory.is_remote(model):
            return
        read = self._reads.get(model)
        if read is None:
            read = self._reads[model] = asyncio.create_task(self._read(model), name=f"look at {model}")
        await asyncio.wait((read,), timeout=READ_TIMEOUT_S)

    async def _read(self, model: str) -> None:
        try:
            await self._factory.estimate(model)
        except ModelyardError:
            # Raised again by the load, for requests that get that far.
            pass
        finally:
            del self._reads[model]


def refusal(model: str, kind: Kind, wanted: Task, others: Mapping[str, Kind | None]) -> UnsupportedOperation | None:
    """Return the error for a task that ``model`` does not do; None where it does it.

    Args:
        model: its id.
        kind: what it does.
        wanted: the task that it is asked for.
        others: kinds of all models by id; None for those that are not known.
    """
    task = _TASKS[kind]
    if task == wanted:
        return None
    able = [name for name, does in others.items() if does is not None and _TASKS[does] == wanted]
    instead = f"Models that do: {', '.join(able)}." if able else "None of the models here does."
    return UnsupportedOperation(f"The model '{model}' {_DOES[task]}: it {_DOES_NOT[wanted]}. {instead}", "model")
