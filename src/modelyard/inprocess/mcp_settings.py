"""What builders say of MCP servers, as tables of a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelyard.config import mcp_tables
from modelyard.config.mcp_file import read_mcp_file
from modelyard.errors import ConfigError


@dataclass(frozen=True, slots=True)
class McpSettings:
    """What one builder says.

    Attributes:
        servers: tables of ``[[mcp.servers]]``. They may hold secrets.
        keys: further keys of ``[mcp]``.
        max_tool_rounds: of ``[server]``; None: not set.
    """

    servers: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    keys: Mapping[str, Any] = field(default_factory=dict)
    max_tool_rounds: int | None = None

    def with_config(self, config: object, source: str) -> McpSettings:
        """Return these, with the servers of a JSON file or of a mapping in its shape.

        Raises:
            ConfigError: the file cannot be read, or it is in none of the shapes; the error lists every problem.
        """
        if isinstance(config, str | Path):
            path = Path(config).absolute()
            file = read_mcp_file(path)
            if problems := [*file.problems, *map(file.place, file.unresolved)]:
                raise ConfigError(str(path), problems)
            return self._with({**file.settings, "servers": file.tables})
        if not isinstance(config, Mapping):
            raise ConfigError(source, [f"with_mcp_config takes the path of a JSON file, or a mapping, not {config!r}."])
        try:
            # As a file has it: of dicts and lists.
            return self._with(mcp_tables(json.loads(json.dumps(config, default=_as_json))))
        except (TypeError, ValueError, RecursionError) as malformed:
            raise ConfigError(source, [str(malformed)]) from None

    def with_server(self, name: str, keys: Mapping[str, Any]) -> McpSettings:
        """Return these, with a server; ``keys`` are those of ``[[mcp.servers]]``."""
        return self._with({"servers": ({"name": name, **keys},)})

    def tables(self) -> dict[str, Any]:
        """Return the tables of a configuration that say the same."""
        tables: dict[str, Any] = {}
        if self.servers or self.keys:
            tables["mcp"] = {**self.keys, "servers": [dict(server) for server in self.servers]}
        if self.max_tool_rounds is not None:
            tables["server"] = {"max_tool_rounds": self.max_tool_rounds}
        return tables

    def _with(self, mcp: Mapping[str, Any]) -> McpSettings:
        keys = {**self.keys, **{key: value for key, value in mcp.items() if key != "servers"}}
        return replace(self, servers=(*self.servers, *mcp.get("servers", ())), keys=keys)


def _as_json(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"with_mcp_config: {type(value).__name__} is no part of JSON.")


def merge_settings(
    for_all: McpSettings, of_models: Sequence[McpSettings], source: str
) -> tuple[McpSettings, list[list[str] | None]]:
    """Return the settings of several models that are built together, and the ``mcp`` list of each; None: it needs none.

    A server of one model is used by that model alone. Models that describe the same server share it.

    Args:
        for_all: of the builder of all models.
        of_models: of the builder of each model.
        source: of errors.

    Raises:
        ConfigError: two servers of one name differ, or a builder of one model says what holds for all of them.
    """
    shared = [str(server.get("name")) for server in for_all.servers]
    servers = dict(zip(shared, for_all.servers, strict=True))
    added: dict[str, Mapping[str, Any]] = {}
    problems: list[str] = []
    for settings in of_models:
        problems += [f"'{key}' of [mcp] holds for all models. Set it on {source}." for key in settings.keys]
        if settings.max_tool_rounds is not None:
            problems.append(f"with_max_tool_rounds holds for all models. Call it on {source}.")
        for server in settings.servers:
            name = str(server.get("name"))
            if name not in servers:
                added[name] = servers[name] = server
            elif servers[name] != server:
                problems.append(f"Two MCP servers are named '{name}', and differ. Give each a name of its own.")
    if problems:
        raise ConfigError(source, list(dict.fromkeys(problems)))
    if not any(settings.servers for settings in of_models):
        return for_all, [None] * len(of_models)
    own = [[str(server.get("name")) for server in settings.servers] for settings in of_models]
    lists: list[list[str] | None] = [list(dict.fromkeys([*shared, *names])) for names in own]
    return replace(for_all, servers=(*for_all.servers, *added.values())), lists
