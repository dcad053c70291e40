"""The table of one model, as a builder describes it."""

from __future__ import annotations

from typing import Any, Protocol

from modelyard.config import Model as ModelTable
from modelyard.config import validate_config
from modelyard.errors import ConfigError
from modelyard.inprocess.builder_words import worded_for_builder
from modelyard.inprocess.mcp_settings import McpSettings
from modelyard.inprocess.tools.program_tools import ModelTools


class ModelDescription(Protocol):
    """The description of one model, such as a ``ModelBuilder``."""

    def table(self, alias: str | None) -> dict[str, Any]:
        """Return the description as a ``[[models]]`` table; ``alias`` is its id if it is not None."""

    def mcp(self) -> McpSettings:
        """Return what was said of MCP servers."""

    def tools(self) -> ModelTools:
        """Return the functions that the model may call, and what approves calls."""


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
    if builder.mcp() != McpSettings():
        raise ConfigError(
            "add_model", ["MCP servers, and max_tool_rounds, belong to what is built first: set them on its builder."]
        )
    written = builder.table(alias)
    # ``draft`` names another model, and ``revise`` checks it against those.
    with worded_for_builder(several=False):
        table = validate_config({"models": [{**written, "draft": None}]}, source="add_model").models[0]
    return table.model_copy(update={"draft": written.get("draft")})
