"""The table of one model, as a builder describes it."""

from __future__ import annotations

from typing import Any, Protocol

from modelyard.config import Model as ModelTable
from modelyard.config import validate_config


class ModelDescription(Protocol):
    """Describes one model: a ``ModelBuilder``."""

    def table(self, alias: str | None) -> dict[str, Any]:
        """The same as a ``[[models]]`` table, under ``alias`` where there is one."""


def model_table(builder: ModelDescription, alias: str | None) -> ModelTable:
    """What ``builder`` says of its model.

    Raises:
        ConfigError: something in it cannot be; it lists every problem.
    """
    written = builder.table(alias)
    table = validate_config({"models": [{**written, "draft": None}]}, source="add_model").models[0]
    # Of models that are there already, which alone it cannot be checked against.
    return table.model_copy(update={"draft": written.get("draft")})
