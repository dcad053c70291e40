"""The rules for MCP servers, and for the lists of models and keys that name them. Pure, as those of ``rules.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from modelyard.config.tables import label
from modelyard.config.wording import did_you_mean, shown
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from modelyard.config.mcp import Mcp, McpServer
    from modelyard.config.model import Model
    from modelyard.config.server import Server
    from modelyard.errors.configuration import Location

MAX_SERVERS: Final = 100
"""MCP servers of one configuration; each has a connection, or a process."""

_OF_COMMAND: Final = ("args", "env", "cwd")
_OF_URL: Final = ("transport", "headers", "bearer_token")
_SCHEMES: Final = {"http": ("http", "https"), "sse": ("http", "https"), "websocket": ("ws", "wss")}


def unusable_servers(mcp: Mcp) -> list[ConfigProblem]:
    """Return what contradicts itself within a server."""
    problems = [
        ConfigProblem(message, hint, table=_label(number, server), location=_at(number, key), related=related)
        for number, server in enumerate(mcp.servers, 1)
        for key, message, hint, related in _contradictions(number, server)
    ]
    if len(mcp.servers) > MAX_SERVERS:
        message = f"{len(mcp.servers)} MCP servers are configured, and {MAX_SERVERS} are the limit."
        problems.append(ConfigProblem(message, location=_at(MAX_SERVERS + 1, "name")))
    return problems


def _contradictions(number: int, server: McpServer) -> Iterator[tuple[str, str, str, tuple[Location, ...]]]:
    """Yield the keys at fault, each with message, hint and the locations of other keys."""
    if server.command is None and server.url is None:
        yield (
            "name",
            "it has neither command nor url.",
            "Name the program, or the address, of the server.",
            (
                _at(number, "command"),
                _at(number, "url"),
            ),
        )
        return
    if server.command is not None and server.url is not None:
        yield "url", "command and url exclude each other.", "Keep one of them.", (_at(number, "command"),)
        return
    of_others, other = (_OF_URL, "url") if server.url is None else (_OF_COMMAND, "command")
    for key in of_others:
        if getattr(server, key):
            yield key, f"{key} is for servers with {other}.", "Remove it.", ()
    if server.url is not None:
        yield from _about_url(number, server, server.url)
    for index, tool in enumerate(server.exclude):
        if tool in (server.tools or ()):
            message = f"exclude: {shown(tool)} is also one of tools."
            yield "exclude", message, "Keep one of them.", (_at(number, "tools"), (*_at(number, "exclude"), index))


def _about_url(number: int, server: McpServer, url: str) -> Iterator[tuple[str, str, str, tuple[Location, ...]]]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    schemes = _SCHEMES[server.effective_transport]
    # The URL is not repeated: tokens are often a part of it.
    if parts.scheme.lower() not in schemes or not host:
        wanted = " or ".join(f"{scheme}://…" for scheme in schemes)
        hint = f"The transport {server.effective_transport} takes {wanted}."
        yield "url", "url is no URL of a server.", hint, (_at(number, "transport"),)
    elif parts.username is not None or parts.password is not None:
        yield "url", "url has a user name or password.", "Send them with headers or bearer_token.", ()
    if server.bearer_token is not None and any(name.lower() == "authorization" for name, _ in server.headers):
        message = "bearer_token and the header Authorization exclude each other."
        yield "bearer_token", message, "Keep one of them.", (_at(number, "headers"),)


def clashing_servers(mcp: Mcp) -> list[ConfigProblem]:
    """Require that each server has a name of its own, and a prefix of its own where it has one."""
    names = [server.name for server in mcp.servers]
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    # A server that is not connected has no tools; those that have the same name clash anyway.
    prefixes = [
        server.prefix if server.enabled and first[server.name] == index else ""
        for index, server in enumerate(mcp.servers)
    ]
    return [
        *_clashes(names, "name", "The name", "Give each its own."),
        *_clashes(prefixes, "tool_prefix", "The tool_prefix", "Set another tool_prefix for one of them."),
    ]


def _clashes(values: Sequence[str], key: str, what: str, hint: str) -> list[ConfigProblem]:
    numbers: dict[str, list[int]] = {}
    for number, value in enumerate(values, 1):
        if value:
            numbers.setdefault(value, []).append(number)
    problems = []
    for value, owners in numbers.items():
        if len(owners) > 1:
            *others, last = (_at(number, key) for number in owners)
            message = f"{what} {shown(value)} belongs to more than one of [[mcp.servers]]."
            problems.append(ConfigProblem(message, hint, location=last, related=tuple(others)))
    return problems


def unknown_servers(mcp: Mcp, models: Mapping[int, Model], server: Server) -> list[ConfigProblem]:
    """Require that the MCP servers that models and keys name exist."""
    known = [each.name for each in mcp.servers]
    lists: list[tuple[str, Location, tuple[str, ...]]] = [
        (label(("models",), number, model.model_id), ("models", number - 1, "mcp"), model.mcp or ())
        for number, model in models.items()
    ]
    lists += [
        (label(("server", "keys"), number), ("server", "keys", number - 1, "mcp"), key.mcp or ())
        for number, key in enumerate(server.keys, 1)
    ]
    hint = f"Known: {', '.join(known)}." if known else "There is no [[mcp.servers]] table, and no mcp_config file."
    return [
        ConfigProblem(
            f"mcp: {shown(name)} is no MCP server.",
            did_you_mean(name, known) or hint,
            table=table,
            location=(*location, index),
        )
        for table, location, names in lists
        for index, name in enumerate(names)
        if name not in known
    ]


def same_ports(server: Server) -> list[ConfigProblem]:
    """Refuse a listener for MCP on the port of the server."""
    if server.mcp_port is None or server.mcp_port != server.port:
        return []
    return [
        ConfigProblem(
            f"mcp_port and port are both {server.port}.",
            "Remove mcp_port, since /mcp is served on port anyway, or choose another one.",
            table="[server]",
            location=("server", "mcp_port"),
            related=(("server", "port"),),
        )
    ]


def unserved_port(mcp: Mcp, server: Server) -> list[ConfigProblem]:
    """Refuse a listener for MCP where MCP is not served."""
    if mcp.serve or server.mcp_port is None:
        return []
    return [
        ConfigProblem(
            f"mcp_port is {server.mcp_port}, and serve = false in [mcp] switches the MCP server off.",
            "Remove one of them.",
            table="[server]",
            location=("server", "mcp_port"),
            related=(("mcp", "serve"),),
        )
    ]


def _at(number: int, key: str) -> Location:
    return ("mcp", "servers", number - 1, key)


def _label(number: int, server: McpServer) -> str:
    return label(("mcp", "servers"), number, server.name)
