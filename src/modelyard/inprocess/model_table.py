"""The table of one model, as a builder describes it."""

from __future__ import annotations

from typing import Any, Protocol

from modelyard.config import Model as ModelTable
from modelyard.config import validate_config


class ModelDescription(Protocol):
    """The description of one model, such as a ``ModelBuilder``."""

    def table(self, alias: str | None) -> dict[str, Any]:
        """Return the description as a ``[[models]]`` table; ``alias`` is its id if it is not None."""


def model_table(builder: ModelDescription, alias: str | None) -> ModelTable:
    """Return the validated table of ``builder``.

    Raises:
        ConfigError: the description is invalid; the error lists every problem.
    """
    written = builder.table(alias)
    # ``draft`` names another model, and ``revise`` checks it against those.
    table = validate_config({"models": [{**written, "draft": None}]}, source="add_model").models[0]
    return table.model_copy(update={"draft": written.get("draft")})
