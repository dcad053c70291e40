"""The table of one model, as a builder describes it."""

from __future__ import annotations

from typing import Any, Protocol

from modelyard.config import Model as ModelTable
from modelyard.config import validate_config
from modelyard.errors import ConfigError
from modelyard.inprocess.builder_words import worded_for_builder


class ModelDescription(Protocol):
    """The description of one model, such as a ``ModelBuilder``."""

    def table(self, alias: str | None) -> dict[str, Any]:
        """Return the description as a ``[[models]]`` table; ``alias`` is its id if it is not None."""


def check_builder(builder: object, method: str) -> None:
    """Refuse what describes no single model.

    Raises:
        ConfigError: ``builder`` is no builder of one model.
    """
    if not callable(getattr(builder, "table", None)) or isinstance(builder, type):
        raise ConfigError(
            method, [f"It takes the builder of one model, such as ModelBuilder('org/model'), not {builder!r}."]
        )


def model_table(builder: ModelDescription, alias: str | None) -> ModelTable:
    """Return the validated table of ``builder``.

    Raises:
        ConfigError: the description is invalid; the error lists every problem.
    """
    check_builder(builder, "add_model")
    written = builder.table(alias)
    # ``draft`` names another model, and ``revise`` checks it against those.
    with worded_for_builder(several=False):
        table = validate_config({"models": [{**written, "draft": None}]}, source="add_model").models[0]
    return table.model_copy(update={"draft": written.get("draft")})
