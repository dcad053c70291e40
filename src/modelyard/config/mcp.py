"""``[mcp]`` and ``[[mcp.servers]]``: the MCP servers whose tools models may call, and the bounds of these calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    Strict,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from modelyard.config.base import Items, Table, Text
from modelyard.config.durations import DURATION_EXAMPLES, read_duration
from modelyard.config.hosts import REQUEST_HOST_WORDING, check_request_host
from modelyard.config.paths import absolute, absolute_program, base_of
from modelyard.config.sizes import read_size

Transport = Literal["http", "sse", "websocket"]
Approval = Literal["never", "always"] | tuple[str, ...]

MAX_PREFIX_CHARS: Final = 32
"""Leaves half of the 64 characters that names of tools may have to the tools' own names."""
MAX_TIMEOUT_S: Final = 14_400
MIN_RESULT_BYTES: Final = 256
MAX_RESULT_BYTES: Final = 16 * 2**20

_MAX_NAME_CHARS: Final = 64
_NAME_WORDING: Final = f"a name of 1 to {_MAX_NAME_CHARS} characters that print"
_PREFIX_WORDING: Final = f"at most {MAX_PREFIX_CHARS} letters, digits, dashes and underscores, in quotes"
_APPROVAL_WORDING: Final = '"never", "always", or a list of names of tools'
_TIMEOUT_WORDING: Final = f"a number of seconds from 1 to {MAX_TIMEOUT_S}, or {DURATION_EXAMPLES}"
_TABLE_WORDING: Final = "a table of texts"
_RESULT_WORDING: Final = 'a size from 256 bytes to 16 MiB, such as "64KiB"'

_PREFIX: Final = re.compile(rf"[A-Za-z0-9_-]{{0,{MAX_PREFIX_CHARS}}}", re.ASCII)

MAX_SECRETS: Final = 256
"""Variables or headers of one server."""


def _read_secrets(value: Any) -> tuple[tuple[str, SecretStr], ...]:
    """Return the items of a table of texts. A tuple, because a configuration is immutable.

    Raises:
        ValueError: it is no such table. The message does not repeat what may be a secret.
    """
    pairs = tuple(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, tuple) or len(pairs) > MAX_SECRETS:
        raise ValueError(f"must be {_TABLE_WORDING}")
    secrets = []
    for name, text in pairs:
        if isinstance(text, str):
            text = SecretStr(text)
        if not isinstance(name, str) or not name or not isinstance(text, SecretStr):
            raise ValueError(f"must be {_TABLE_WORDING}")
        secrets.append((name, text))
    return tuple(secrets)


def _hidden(secrets: tuple[tuple[str, SecretStr], ...]) -> dict[str, str]:
    """Return the table of secrets as it may be shown."""
    return {name: str(secret) for name, secret in secrets}


_Timeout = Annotated[float, Field(ge=1, le=MAX_TIMEOUT_S), BeforeValidator(read_duration)]
_Secrets = Annotated[
    tuple[tuple[str, SecretStr], ...],
    PlainValidator(_read_secrets),
    PlainSerializer(_hidden, when_used="json"),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}, "format": "password"}),
]


def _check_name(name: str) -> str:
    """Refuse names that would break a line of a log or a table.

    Raises:
        ValueError: the message says what is allowed.
    """
    if not 1 <= len(name) <= _MAX_NAME_CHARS or not name.isprintable():
        raise ValueError(f"must be {_NAME_WORDING}")
    return name


def _check_prefix(prefix: str) -> str:
    """Refuse prefixes that names of tools could not begin with.

    Raises:
        ValueError: the message says what is allowed.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"must be {_PREFIX_WORDING}")
    return prefix


def _read_approval(value: Any) -> Approval:
    """Return which tools need an approval.

    Raises:
        ValueError: it is neither of the words, nor a list of names.
    """
    if value == "never" or value == "always":
        return "never" if value == "never" else "always"
    if isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise ValueError(f"must be {_APPROVAL_WORDING}")


_ApprovalKey = Annotated[
    Approval,
    PlainValidator(_read_approval),
    WithJsonSchema({"anyOf": [{"enum": ["never", "always"], "type": "string"}]}),
]


def _read_result_size(value: Any) -> int:
    """Return the bytes of ``max_result``.

    Raises:
        ValueError: it is no size, or out of bounds.
    """
    size = read_size(value)
    if not MIN_RESULT_BYTES <= size <= MAX_RESULT_BYTES:
        raise ValueError(f"must be {_RESULT_WORDING}")
    return size


class McpServer(Table):
    """``[[mcp.servers]]``: one MCP server, which is started with ``command`` or reached at ``url``."""

    name: Annotated[str, AfterValidator(_check_name)] = Field(
        json_schema_extra={"wording": _NAME_WORDING},
        description="Name of the server in logs, metrics and answers, and in the `mcp` lists of models and keys.",
    )
    command: Text | None = Field(
        default=None,
        description="Program that is started, and speaks MCP on its standard input and output. What begins with `./`, "
        "`../` or `~/` is a path relative to the TOML file; other names are looked for on the `PATH`.",
    )
    args: Items[str] = Field(default=(), description="Arguments of the program.")
    env: _Secrets = Field(
        default=(),
        json_schema_extra={"wording": _TABLE_WORDING, "default": {}},
        description="Environment variables of the program, beside a few such as `PATH` and `HOME`. It inherits no "
        "others.",
    )
    cwd: Annotated[Path, Strict(False)] | None = Field(
        default=None,
        description="Working directory of the program, relative to the TOML file. Unset: that of Modelyard.",
    )
    url: Text | None = Field(default=None, description="URL of the server, in place of `command`.")
    transport: Transport | None = Field(
        default=None,
        description="How the server at `url` is spoken to: `http` (streamable HTTP), `sse` (the older HTTP with "
        "server-sent events) or `websocket`. Unset: `websocket` for a `ws` or `wss` URL, else `http`.",
    )
    headers: _Secrets = Field(
        default=(),
        json_schema_extra={"wording": _TABLE_WORDING, "default": {}},
        description="HTTP headers of each request to `url`.",
    )
    bearer_token: SecretStr | None = Field(
        default=None, min_length=1, description="Token that is sent to `url` as `Authorization: Bearer`."
    )
    enabled: bool = Field(default=True, description="Whether the server is connected.")
    tool_prefix: Annotated[str, AfterValidator(_check_prefix)] | None = Field(
        default=None,
        json_schema_extra={"wording": _PREFIX_WORDING},
        description="What the names of its tools begin with, before an underscore. Empty: nothing. Unset: `name`.",
    )
    tools: Items[Text] | None = Field(
        default=None, description="Names, without the prefix, of the tools that models may call. Unset: all."
    )
    exclude: Items[Text] = Field(
        default=(), description="Names, without the prefix, of tools that models may not call."
    )
    resources: Items[Text] = Field(
        default=(),
        description="URIs of resources of the server that models may read, with the tool `<prefix>_read_resource`.",
    )
    approval: _ApprovalKey = Field(
        default="never",
        json_schema_extra={"wording": _APPROVAL_WORDING},
        description="Which calls wait until somebody approves them: `never` any, `always` all, or those of a list of "
        "tools, by their names without the prefix.",
    )
    timeout: _Timeout | None = Field(
        default=None,
        json_schema_extra={"wording": _TIMEOUT_WORDING},
        description="Time after which a call of its tools is given up. Unset: `tool_timeout` of `[mcp]`.",
    )
    max_concurrent_calls: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Calls of its tools that run at the same time; further ones wait. Unset: as `[mcp]` allows.",
    )

    @field_validator("cwd")
    @classmethod
    def _make_absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else absolute(path, base_of(info.context))

    @field_validator("command")
    @classmethod
    def _make_command_absolute(cls, command: str | None, info: ValidationInfo) -> str | None:
        return None if command is None else absolute_program(command, base_of(info.context))

    @property
    def effective_transport(self) -> Transport | Literal["stdio"]:
        """How the server is spoken to."""
        if self.url is None:
            return "stdio"
        return self.transport or ("websocket" if self.url.lower().startswith(("ws:", "wss:")) else "http")

    @property
    def prefix(self) -> str:
        """What the names of its tools begin with, without the underscore; "" where they have no prefix."""
        return sound_prefix(self.name) if self.tool_prefix is None else self.tool_prefix

    def needs_approval(self, tool: str) -> bool:
        """Whether calls of ``tool``, by its own name, wait for an approval."""
        return self.approval == "always" or (self.approval != "never" and tool in self.approval)


def sound_prefix(name: str) -> str:
    """Return ``name`` as a prefix of tools: with an underscore for what their names cannot hold, and not too long."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:MAX_PREFIX_CHARS].strip("_") or "mcp"


class Mcp(Table):
    """``[mcp]``: the tools of MCP servers that models call while they answer, and what is offered as an MCP server."""

    tool_timeout: _Timeout = Field(
        default=30.0,
        json_schema_extra={"wording": _TIMEOUT_WORDING, "default": "30s"},
        description="Time after which a call of a tool is given up; the model gets an error as its result.",
    )
    max_concurrent_calls: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Calls of tools that run at the same time, of all servers together; further ones wait.",
    )
    max_result: Annotated[int, BeforeValidator(_read_result_size)] = Field(
        default=64 * 1024,
        json_schema_extra={"wording": _RESULT_WORDING, "default": "64KiB"},
        description="Size of the text that a model reads of one result; what is longer is cut, and the text says so.",
    )
    approval_timeout: _Timeout = Field(
        default=300.0,
        json_schema_extra={"wording": _TIMEOUT_WORDING, "default": "5m"},
        description="Time after which a call that nobody approved counts as denied.",
    )
    allow_request_servers: Items[
        Annotated[
            Text,
            AfterValidator(check_request_host),
            Field(json_schema_extra={"wording": REQUEST_HOST_WORDING}),
        ]
    ] = Field(
        default=(),
        description="Host names of MCP servers that requests may name by their URL. Empty: requests may name none.",
    )
    serve: bool = Field(
        default=True, description="Whether Modelyard is an MCP server itself, at `/mcp`, for clients with a key."
    )
    servers: Items[McpServer] = Field(default=(), description="The MCP servers, one table each.")
