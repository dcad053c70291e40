"""Names under which models call the tools of MCP servers. Pure.

Providers take names of 1 to 64 letters, digits, ``_`` and ``-``. MCP servers may use others, and two servers the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

MAX_NAME_CHARS: Final = 64

_HASH_CHARS: Final = 8
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class ToolKey:
    """A tool among those of all servers.

    Attributes:
        server: name of its server.
        prefix: what its name begins with; "" where it has no prefix.
        own_name: its name at its server.
    """

    server: str
    prefix: str
    own_name: str


def tool_names(tools: Sequence[ToolKey], taken: Collection[str] = ()) -> list[str]:
    """Return a name for each tool: ``<prefix>_<own name>``, all different.

    What a name cannot hold becomes ``_``. A name that is too long, or that another tool has, ends with a hash of the
    tool's server and own name, so that it is the same in each process and in whatever order servers connect. Of tools
    with one name, the first whose name did not have to be changed keeps it.

    Args:
        tools: the tools; no two of one server have the same own name.
        taken: names that are none of theirs.
    """
    plain = [_plain(tool) for tool in tools]
    names: dict[int, str] = {}
    used = set(taken)
    for index, (tool, name) in enumerate(zip(tools, plain, strict=True)):
        if name == _joined(tool, tool.own_name) and len(name) <= MAX_NAME_CHARS and name not in used:
            names[index] = name
            used.add(name)
    for index, (tool, name) in enumerate(zip(tools, plain, strict=True)):
        if index in names:
            continue
        if len(name) > MAX_NAME_CHARS or name in used:
            name = _hashed(tool, name, used)
        names[index] = name
        used.add(name)
    return [names[index] for index in range(len(tools))]


def _plain(tool: ToolKey) -> str:
    return _joined(tool, _FOREIGN.sub("_", tool.own_name))


def _joined(tool: ToolKey, name: str) -> str:
    return f"{tool.prefix}_{name}" if tool.prefix else name


def _hashed(tool: ToolKey, name: str, used: Collection[str]) -> str:
    """Return ``name``, cut where it is too long, with a hash behind it."""
    salt = 0
    while True:
        digest = hashlib.sha256(f"{tool.server}\0{tool.own_name}\0{salt}".encode("utf-8", "surrogatepass")).hexdigest()
        hashed = f"{name[: MAX_NAME_CHARS - _HASH_CHARS - 1]}_{digest[:_HASH_CHARS]}"
        if hashed not in used:
            return hashed
        salt += 1
