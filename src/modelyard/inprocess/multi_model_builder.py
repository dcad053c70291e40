"""A builder of several models, each described by a builder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from modelyard.config import Config, validate_config
from modelyard.errors import ConfigError
from modelyard.inprocess.buildable import McpBuildable
from modelyard.inprocess.builder_words import worded_for_builder
from modelyard.inprocess.builders import ModelBuilder
from modelyard.inprocess.mcp_settings import merge_settings
from modelyard.inprocess.model_table import check_builder
from modelyard.inprocess.tools.program_tools import ProgramTools


class MultiModelBuilder(McpBuildable):
    """Several models in one process, each on an engine of its own.

    The first model is the default, unless ``with_default_model`` names another.
    """

    def __init__(self) -> None:
        self._models: list[tuple[ModelBuilder, str | None]] = []
        self._default: str | None = None
        self._memory: dict[str, Any] = {}
        self._runtime: dict[str, Any] = {}
        self._hub: dict[str, Any] = {}

    def add_model(self, builder: ModelBuilder) -> Self:
        """Add a model, whose id is the ``model_id`` of its builder.

        Raises:
            ConfigError: ``builder`` is no builder of one model.
        """
        return self._add(builder, None, "add_model")

    def add_model_with_alias(self, alias: str, builder: ModelBuilder) -> Self:
        """Add a model whose id is ``alias``; the ``model_id`` of its builder is another name for it.

        Raises:
            ConfigError: ``builder`` is no builder of one model.
        """
        return self._add(builder, alias, "add_model_with_alias")

    def _add(self, builder: ModelBuilder, alias: str | None, method: str) -> Self:
        check_builder(builder, method)
        self._models.append((builder, alias))
        return self

    def __repr__(self) -> str:
        models = [repr(model) if alias is None else f"{alias}: {model!r}" for model, alias in self._models]
        return f"{type(self).__name__}({', '.join(models)})"

    def with_default_model(self, model: str) -> Self:
        """Set the model, by id or alias, for requests that name none."""
        self._default = model
        return self

    def with_memory_budget(self, budget: str | float) -> Self:
        """Set the memory of all models together: a size such as ``"16GiB"``, or a fraction of the machine: ``0.5``."""
        self._memory["budget"] = budget
        return self

    def with_device_budget(self, device: str | int, budget: str | float) -> Self:
        """Set the memory of all models together on a device, by its name or number, as ``with_memory_budget`` does."""
        self._memory.setdefault("devices", {})[str(device)] = budget
        return self

    def with_runtime(self, **keys: Any) -> Self:
        """Set keys of ``[runtime]``, such as ``prefix_cache_n``, which bound the sequences of the engines."""
        self._runtime |= keys
        return self

    def with_token_source(self, source: str) -> Self:
        """Set where the hub's token is: ``cache``, ``env:VARIABLE``, ``path:FILE``, ``literal:TOKEN`` or ``none``."""
        self._hub["token_source"] = source
        return self

    def _program_tools(self, config: Config) -> ProgramTools:
        builders = (builder for builder, _ in self._models)
        return ProgramTools(
            self._tools, {model.id: builder.tools() for model, builder in zip(config.models, builders, strict=True)}
        )

    def config(self) -> Config:
        """Return the description as a configuration.

        Raises:
            ConfigError: there is no model, two models share a name, the default is no model, or another part is
                invalid; the error lists every problem.
        """
        if not self._models:
            raise ConfigError("MultiModelBuilder", ["No models: add at least one with add_model."])
        tables = [builder.table(alias) for builder, alias in self._models]
        default = self._default or tables[0].get("alias") or tables[0]["model_id"]
        mcp, lists = merge_settings(self._mcp, [builder.mcp() for builder, _ in self._models], "MultiModelBuilder")
        tables = [
            table if names is None else {**table, "mcp": names} for table, names in zip(tables, lists, strict=True)
        ]
        tree: Mapping[str, Any] = {
            **mcp.tables(),
            "default_model_id": default,
            "memory": self._memory,
            "runtime": self._runtime,
            "hub": self._hub,
            "models": tables,
        }
        with self._own_words():
            return validate_config(tree, source="MultiModelBuilder")

    def _own_words(self) -> AbstractContextManager[None]:
        return worded_for_builder(several=True)
