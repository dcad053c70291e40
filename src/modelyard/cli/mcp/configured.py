"""The MCP servers that a command is about, and its connections to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from modelyard.cli.model_names import DEFAULT_FILE, config_path
from modelyard.cli.usage import UsageError

if TYPE_CHECKING:
    from modelyard.config import Config
    from modelyard.mcp.clients import McpClients

_T = TypeVar("_T")

SOUND_STATES: Final = ("connected", "disabled")
"""The states of a server with which nothing is wrong."""


def mcp_configuration(file: Path | None, config: Path | None, mcp_config: Path | None, *, command: str) -> Config:
    """Return the configuration of the MCP servers that a command line names, else of those in ``models.toml``.

    Raises:
        UsageError: nothing is named, and there is no ``models.toml``; or there are no servers.
        ConfigError: a file has mistakes.
    """
    from modelyard.config import load_config, mcp_config_path, validate_config

    if file is None and config is None and mcp_config is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    if file is not None or config is not None:
        loaded = load_config(config_path(file, config, command=command), mcp_config=mcp_config)
    elif (path := mcp_config_path(mcp_config)) is not None:
        # A configuration has a model; this one is never loaded.
        model = {"model_id": "org/name", "load": "on-demand"}
        loaded = validate_config({"models": [model], "runtime": {"mcp_config": str(path)}}, source=str(path))
    else:
        raise UsageError(f"No MCP servers are given. Write: modelyard {command} models.toml, or --mcp-config FILE.")
    if not loaded.mcp.servers:
        raise UsageError("The configuration has no MCP servers. Write a [[mcp.servers]] table, or mcp_config.")
    return loaded


def with_clients(config: Config, work: Callable[[McpClients], Awaitable[_T]]) -> _T:
    """Return what ``work`` returns, which uses the clients of the servers; their programs end after it."""
    # What goes wrong is a part of the output.
    for name in ("modelyard", "mcp", "client"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False

    async def run() -> _T:
        from modelyard.mcp.clients import McpClients

        clients = McpClients(config)
        clients.start()
        try:
            return await work(clients)
        finally:
            await clients.aclose()

    return asyncio.run(run())


def is_given(file: Path | None, config: Path | None, mcp_config: Path | None) -> bool:
    """Whether a command line, or the environment, names a configuration of MCP servers."""
    from modelyard.config import mcp_config_path

    return file is not None or config is not None or mcp_config_path(mcp_config) is not None
