"""What each model does, and what is answered where it is asked for something else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from modelyard.errors import ModelyardError, UnsupportedOperation
from modelyard.hub import Kind, Senses
from modelyard.yard.runtime.engine_factory import EngineFactory

# How long a request waits to hear what its model does, where nobody has looked at the files yet. It goes on without:
# the engine refuses what it cannot do.
LOOK_S: Final = 1.0

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
    """Kinds of models, by the names that the residency has for them; found out where they are asked for.

    Args:
        workshop: knows the files.
    """

    def __init__(self, factory: EngineFactory) -> None:
        self._factory = factory
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def kind_of(self, model: str) -> Kind | None:
        """Its kind; None where it is not found out soon."""
        if self._factory.kind(model) is None:
            await self._looked(model)
        return self._factory.kind(model)

    async def senses(self, model: str) -> Senses | None:
        """What it takes beside text; None where that is not found out soon."""
        if self._factory.senses(model) is None:
            await self._looked(model)
        return self._factory.senses(model)

    async def _looked(self, model: str) -> None:
        """Look at its files, and wait for that as long as a request does."""
        if model not in self._factory.specs:
            return
        look = self._looks.get(model)
        if look is None:
            look = self._looks[model] = asyncio.create_task(self._look(model), name=f"look at {model}")
        await asyncio.wait((look,), timeout=LOOK_S)

    async def _look(self, model: str) -> None:
        try:
            await self._factory.estimate(model)
        except ModelyardError:
            # The load will say so, to those who ask for the model itself.
            pass
        finally:
            del self._looks[model]


def refusal(model: str, kind: Kind, wanted: Task, others: Mapping[str, Kind | None]) -> UnsupportedOperation | None:
    """What is answered where ``model`` cannot do what is wanted of it; None where it can.

    Args:
        model: its id.
        kind: what it does.
        wanted: of it.
        others: kinds of all models by id, as far as they are known.
    """
    task = _TASKS[kind]
    if task == wanted:
        return None
    able = [name for name, does in others.items() if does is not None and _TASKS[does] == wanted]
    instead = f"Models that do: {', '.join(able)}." if able else "None of the models here does."
    return UnsupportedOperation(f"The model '{model}' {_DOES[task]}: it {_DOES_NOT[wanted]}. {instead}", "model")
