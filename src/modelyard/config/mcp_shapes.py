"""The shapes of JSON files with MCP servers, and what their keys are in TOML. Pure.

Sources: mistral.rs, McpClientConfig; the ``mcpServers`` of Claude Desktop, Cursor, Cline and Windsurf; VS Code, the
``servers`` of mcp.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.config.wording import did_you_mean, shown
from modelyard.errors.configuration import ConfigProblem, Location

# Keys of [[mcp.servers]] that servers of every shape may have.
_OWN: Final = {
    name: name
    for name in (
        *("enabled", "tool_prefix", "tools", "exclude", "resources", "approval", "bearer_token"),
        *("timeout", "max_concurrent_calls", "transport"),
    )
}
_WIDESPREAD: Final = {
    **_OWN,
    **{name: name for name in ("command", "args", "env", "cwd", "url", "headers")},
    "serverUrl": "url",
    "type": "transport",
}
_LISTED: Final = {**_OWN, "name": "name"}
_SOURCES: Final = {
    "Http": {"url": "url", "timeout_secs": "timeout", "headers": "headers"},
    "Sse": {"url": "url", "timeout_secs": "timeout", "headers": "headers"},
    "WebSocket": {"url": "url", "timeout_secs": "timeout", "headers": "headers"},
    "Process": {"command": "command", "args": "args", "work_dir": "cwd", "env": "env"},
}
_TRANSPORTS: Final = {
    **dict.fromkeys(("http", "streamable-http", "streamablehttp", "streamable_http"), "http"),
    "sse": "sse",
    **dict.fromkeys(("ws", "websocket"), "websocket"),
    # What runs as a program has no transport here.
    "stdio": None,
    "process": None,
}
_SETTINGS: Final = {"tool_timeout_secs": "tool_timeout", "max_concurrent_calls": "max_concurrent_calls"}
_TOP: Final = ("servers", "mcpServers", "auto_register_tools", *_SETTINGS, "$schema")

_ADVICE: Final = {
    "inputs": "Modelyard asks for no values: write ${NAME} for those of the environment.",
    "envFile": "Write the variables into env, as ${NAME} where they come from the environment.",
    **dict.fromkeys(("autoApprove", "alwaysAllow"), "Write approval: a list of the tools that need one."),
    **dict.fromkeys(("disabledTools", "excludeTools"), "Write exclude."),
    "includeTools": "Write tools.",
    "trust": "Write approval.",
    "httpUrl": "Write url.",
    "transportType": "Write type.",
    "work_dir": "Write cwd.",
}

_ENVIRONMENT: Final = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(slots=True)
class Servers:
    """The servers of a JSON document, in the shape of TOML.

    Attributes:
        tables: of ``[[mcp.servers]]``, in their order.
        settings: keys of ``[mcp]``.
        origins: location of a value among ``tables`` and ``settings`` -> location in the document.
        problems: what is in none of the shapes, with locations in the document.
    """

    tables: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    origins: dict[Location, Location] = field(default_factory=dict)
    problems: list[ConfigProblem] = field(default_factory=list)


def with_plain_references(value: Any) -> Any:
    """Return a value with ``${NAME}`` in place of ``${env:NAME}``, as VS Code writes variables of the environment."""
    match value:
        case dict():
            return {key: with_plain_references(inner) for key, inner in value.items()}
        case list():
            return [with_plain_references(item) for item in value]
        case str():
            return _ENVIRONMENT.sub(r"${\1}", value)
        case _:
            return value


def own_key(location: Location) -> Location:
    """Return the key of TOML whose type the value at a location of a JSON document has; () where there is none."""
    match location:
        case ("auto_register_tools",) | ("servers" | "mcpServers", _, "disabled"):
            return ("mcp", "servers", 0, "enabled")
        case (str(key),) if key in _SETTINGS:
            return ("mcp", _SETTINGS[key])
        case ("servers" | "mcpServers", _, str(key)) if key in _WIDESPREAD:
            return ("mcp", "servers", 0, _WIDESPREAD[key])
        case ("servers", _, "source", "timeout_secs"):
            return ("mcp", "servers", 0, "timeout")
        case _:
            return ()


def servers_of(document: Any) -> Servers:
    """Return the servers of a JSON document."""
    found = Servers()
    if not isinstance(document, dict):
        found.problems.append(ConfigProblem(f"It must be a JSON object, not {shown(document)}.", _SHAPES))
        return found
    found.problems += _unknown_keys((), _own_keys(document), _TOP)
    for key, own in _SETTINGS.items():
        if document.get(key) is not None:
            found.settings[own] = document[key]
            found.origins[("mcp", own)] = (key,)
    for key in ("servers", "mcpServers"):
        match document.get(key):
            case None:
                continue
            case list(servers) if key == "servers":
                for index, server in enumerate(servers):
                    _add(found, (key, index), server, _listed)
            case dict(servers):
                for name, server in servers.items():
                    _add(found, (key, name), server, _widespread)
            case other:
                message = f"{key} must be an object of servers by their names, not {shown(other)}."
                found.problems.append(ConfigProblem(message, location=(key,)))
    if document.get("servers") is None and document.get("mcpServers") is None:
        found.problems.append(ConfigProblem("It has no servers.", _SHAPES))
    match document.get("auto_register_tools", True):
        case False:
            for table in found.tables:
                table |= {"tools": [], "resources": []}
        case bool():
            pass
        case other:
            message = f"auto_register_tools must be true or false, not {shown(other)}."
            found.problems.append(ConfigProblem(message, location=("auto_register_tools",)))
    return found


def _own_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a document that are to be known.

    Programs keep other settings of theirs beside ``mcpServers``, as Claude Desktop and Gemini's CLI do. Those are left
    out, unless they may be a mistyped key. So is an empty list of ``inputs``, which VS Code writes.
    """
    is_of_program = "mcpServers" in document
    return {
        key: value
        for key, value in document.items()
        if not (key == "inputs" and value == [])
        and not (is_of_program and key not in (*_TOP, *_ADVICE) and not did_you_mean(key, _TOP))
    }


_SHAPES: Final = (
    'Write {"mcpServers": {"name": {"command": …}}}, or mistral.rs\'s {"servers": [{"name": …, "source": …}]}.'
)

_Reader = Callable[[Servers, int, Location, Mapping[str, Any]], dict[str, Any]]


def _add(found: Servers, location: Location, server: Any, read: _Reader) -> None:
    """Add one server, which ``read`` turns into a table."""
    if not isinstance(server, dict):
        message = f"A server must be an object, not {shown(server)}."
        found.problems.append(ConfigProblem(message, location=location))
        return
    index = len(found.tables)
    found.origins[("mcp", "servers", index)] = location
    found.tables.append({})
    found.tables[index] = read(found, index, location, server)


def _widespread(found: Servers, index: int, location: Location, server: Mapping[str, Any]) -> dict[str, Any]:
    known = (*_WIDESPREAD, "disabled", "description")
    _refuse_unknown(found, location, server, known)
    table = _renamed(found, index, location, server, _WIDESPREAD)
    table["name"] = location[-1]
    _read_transport(found, index, location, table)
    if "disabled" in server and "enabled" not in server:
        disabled = server["disabled"]
        table["enabled"] = not disabled if isinstance(disabled, bool) else disabled
        found.origins[("mcp", "servers", index, "enabled")] = (*location, "disabled")
    return table


def _listed(found: Servers, index: int, location: Location, server: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_unknown(found, location, server, (*_LISTED, "id", "source"))
    table = _renamed(found, index, location, server, _LISTED)
    table["name"] = server.get("name") or server.get("id") or f"server {index + 1}"
    if "tool_prefix" in server and server["tool_prefix"] is None:
        table["tool_prefix"] = ""  # as in mistral.rs: none is wanted
    source = server.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(kind, str) or kind not in _SOURCES:
        wrong = "type" if isinstance(source, dict) else "source"
        found.problems.append(
            ConfigProblem(
                f"{wrong} must be {'one of ' + ', '.join(_SOURCES) if wrong == 'type' else 'an object'}, "
                f"not {shown(kind if wrong == 'type' else source)}.",
                location=(*location, "source", "type") if wrong == "type" else (*location, "source"),
            )
        )
        # Nothing more is said about a server whose source cannot be read.
        return {"name": table["name"], "command": "-", "enabled": False}
    _refuse_unknown(found, (*location, "source"), source, ("type", *_SOURCES[kind]))
    table |= _renamed(found, index, (*location, "source"), source, _SOURCES[kind])
    table["transport"] = kind
    found.origins[("mcp", "servers", index, "transport")] = (*location, "source", "type")
    _read_transport(found, index, (*location, "source"), table)
    return table


def _renamed(
    found: Servers, index: int, location: Location, given: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return the keys of ``given`` that have a value, under the names that they have in TOML."""
    table = {}
    for key, own in names.items():
        if given.get(key) is not None:
            table[own] = given[key]
            found.origins[("mcp", "servers", index, own)] = (*location, key)
    return table


def _read_transport(found: Servers, index: int, location: Location, table: dict[str, Any]) -> None:
    """Put the name that the transport has in TOML into the table; leave out that of programs."""
    transport = table.pop("transport", None)
    if transport is None:
        return
    if not isinstance(transport, str) or transport.lower() not in _TRANSPORTS:
        at = found.origins.get(("mcp", "servers", index, "transport"), location)
        message = f"{at[-1]} must be one of stdio, http, sse, websocket, not {shown(transport)}."
        found.problems.append(ConfigProblem(message, location=at))
    elif (own := _TRANSPORTS[transport.lower()]) is not None:
        table["transport"] = own


def _refuse_unknown(found: Servers, location: Location, given: Mapping[str, Any], known: Sequence[str]) -> None:
    found.problems += _unknown_keys(location, given, known)


def _unknown_keys(location: Location, given: Mapping[str, Any], known: Sequence[str]) -> Iterator[ConfigProblem]:
    for key in given:
        if key not in known:
            advice = _ADVICE.get(key) or did_you_mean(key, known) or f"Known here: {', '.join(known)}."
            yield ConfigProblem(f"unknown key {shown(key)}.", advice, location=(*location, key), is_key=True)
