"""The rules about adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.config.tables import label
from modelyard.config.wording import shown
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from modelyard.config.adapter import Adapter
    from modelyard.config.model import Model


def repeated_adapters(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that the adapters of a model have names of their own."""
    problems = []
    for number, model in models.items():
        first: dict[str, int] = {}
        for index, adapter in enumerate(model.adapters):
            other = first.setdefault(adapter.name, index)
            if other != index:
                problems.append(
                    ConfigProblem(
                        f"the name {shown(adapter.name)} belongs to more than one adapter of "
                        f"{label(('models',), number, model.model_id)}.",
                        "Give each a name of its own.",
                        table=label(("models", "adapters"), index + 1, adapter.name),
                        location=("models", number - 1, "adapters", index, "name"),
                        related=(("models", number - 1, "adapters", other, "name"),),
                    )
                )
    return problems


def clashing_aliases(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that the alias of an adapter is no name of a model, nor of another adapter."""
    owners = {name for model in models.values() for name in model.names}
    problems = []
    for number, index, adapter in _adapters(models):
        if adapter.alias is None:
            continue
        if adapter.alias in owners:
            problems.append(
                ConfigProblem(
                    f"the alias {shown(adapter.alias)} is the name of another model.",
                    "Choose another one.",
                    table=label(("models", "adapters"), index + 1, adapter.name),
                    location=("models", number - 1, "adapters", index, "alias"),
                )
            )
        owners.add(adapter.alias)
    return problems


def _adapters(models: Mapping[int, Model]) -> Iterable[tuple[int, int, Adapter]]:
    for number, model in models.items():
        for index, adapter in enumerate(model.adapters):
            yield number, index, adapter
