"""The exit codes of the command line: one for each kind of failure, the same in every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelyard.errors import (
    AmbiguousServer,
    ConfigError,
    InsufficientMemory,
    ModelLoadFailed,
    ModelNotFound,
    ModelyardError,
    OutOfMemory,
    PortUnavailable,
    ServerRefused,
    ServerUnusable,
    UnusableModel,
    UnusableModels,
)

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = 3
MODEL: Final = 4
MEMORY: Final = 5
PORT: Final = 6
NO_SERVER: Final = 7
REFUSED: Final = 8
INTERRUPTED: Final = 130
OUTPUT_CUT: Final = 141

MEANINGS: Final[Mapping[int, str]] = {
    OK: "Success.",
    FAILURE: "Another failure; of doctor: no model can be served; of mcp: a server is not connected, or a tool fails.",
    USAGE: "The command line is wrong: an unknown command or option, a bad value, two options that exclude each other.",
    CONFIGURATION: "The configuration file is missing, is no TOML, or has mistakes.",
    MODEL: "A model is missing, damaged, not supported, or cannot be downloaded or loaded.",
    MEMORY: "A model does not fit into memory.",
    PORT: "The address cannot be listened on: it is in use, or not one of this machine.",
    NO_SERVER: "No server answers at the address.",
    REFUSED: "The server refused the request.",
    INTERRUPTED: "Interrupted with Ctrl-C.",
    OUTPUT_CUT: "The reader of the output has ended, as with | head -1.",
}
"""What each exit code means."""

_KINDS: Final[tuple[tuple[type[ModelyardError], int], ...]] = (
    (InsufficientMemory, MEMORY),
    (OutOfMemory, MEMORY),
    (UnusableModel, MODEL),
    (UnusableModels, MODEL),
    (ModelLoadFailed, MODEL),
    (ModelNotFound, MODEL),
    (ConfigError, CONFIGURATION),
    (PortUnavailable, PORT),
    (AmbiguousServer, USAGE),
    (ServerRefused, REFUSED),
    (ServerUnusable, NO_SERVER),
)

SERVER_CODES: Final[Mapping[str, int]] = {
    InsufficientMemory.code: MEMORY,
    OutOfMemory.code: MEMORY,
    ModelLoadFailed.code: MODEL,
    ModelNotFound.code: MODEL,
}
"""Exit codes of errors that a server answers with, by their code: what fails is the same as without a server."""


def exit_code(error: ModelyardError) -> int:
    """Return the exit code of a command that fails with ``error``; an error may bring its own as ``exit_code``."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    if isinstance(error, ServerRefused) and error.server_code in SERVER_CODES:
        return SERVER_CODES[error.server_code]
    return next((code for kind, code in _KINDS if isinstance(error, kind)), FAILURE)
