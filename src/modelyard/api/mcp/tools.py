"""What a tool of this server is: its name, its arguments, who may call it, and what runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from modelyard.api.errors.rendering import MAX_NAME_CHARS, field_path
from modelyard.api.mcp.progress import CallProgress
from modelyard.api.mcp.schemas import argument_names, arguments_schema
from modelyard.api.openapi.schemas import Schema
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.api.serving.ignored_fields import ignored_fields
from modelyard.api.serving.request_body import RequestBody
from modelyard.config import Scope
from modelyard.errors import InvalidRequest

_Body = TypeVar("_Body", bound=BaseModel)


class UnknownArgument(Exception):
    """A call has an argument that its tool does not have: an error of the protocol, not of the tool."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool has returned.

    Attributes:
        text: for clients that show or read text.
        structured: the same as an object, the body of the HTTP endpoint's answer.
        ignored: the parts of the arguments that had no effect.
    """

    text: str
    structured: dict[str, Any]
    ignored: tuple[str, ...]


MAX_RESULT_BYTES: Final = 2 << 20
"""Bytes of a result as JSON. The SDK writes it on the event loop: probabilities of this size take 0.25 s."""


def tool_answer(written: bytes, ignored: tuple[str, ...], text: str | None = None) -> ToolAnswer:
    """Return what a tool has returned.

    Args:
        written: the body of the HTTP endpoint's answer.
        ignored: the parts of the arguments that had no effect.
        text: for clients that show or read text; None: the body.

    Raises:
        InvalidRequest: it is too long.
    """
    if len(written) > MAX_RESULT_BYTES:
        raise InvalidRequest(
            f"The result has {len(written):,} bytes, and at most {MAX_RESULT_BYTES:,} pass as a tool's result. Ask for "
            "less at a time, or use the HTTP endpoint."
        )
    return ToolAnswer(written.decode() if text is None else text, orjson.loads(written), ignored)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        services: of the application.
        arguments: as the client sent them.
        progress: takes what is to be reported.
        http: the request that has brought it.
    """

    services: Services
    arguments: Mapping[str, Any]
    progress: CallProgress
    http: Request

    async def body(self, kind: type[_Body], values: Mapping[str, Any]) -> tuple[_Body, tuple[str, ...]]:
        """Return ``values`` as the body of an HTTP endpoint, and the parts of it that have no effect.

        Raises:
            InvalidRequest: a field is invalid, or has no effect and the server is strict.
        """

        def read() -> tuple[_Body, tuple[str, ...]]:
            body = _validated(kind, values)
            return body, tuple(ignored_fields(body))

        body, ignored = await RequestBody.of(self.http.scope).converted(read)
        # Not ``ignore``: its header may have been sent.
        RequestContext.of(self.http.scope).allow(ignored)
        return body, ignored


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of this server.

    Attributes:
        name: as clients call it.
        title: as clients show it.
        description: what it does, for models and people.
        scope: what a key needs to see and to call it.
        body: the body of the HTTP endpoint that does the same.
        run: runs it.
        listed: the fields of the body that clients are shown, the most important ones first. Clients send a model the
            schemas of all tools before each of its answers, so rare fields are accepted without being listed.
        required: the arguments that a call must have.
        without: fields of the body that the tool does not have.
        further: JSON schemas of arguments that the body does not have.
        is_read_only: whether it changes nothing.
        is_destructive: whether it may end what others use.
        is_idempotent: whether a second call with the same arguments changes nothing more.
        is_open: whether it may reach other programs: a chat calls the tools of the server.
    """

    name: str
    title: str
    description: str
    scope: Scope
    body: type[BaseModel]
    run: Callable[[ToolCall], Awaitable[ToolAnswer]]
    listed: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    further: Mapping[str, Schema] = field(default_factory=dict)
    is_read_only: bool = False
    is_destructive: bool = False
    is_idempotent: bool = False
    is_open: bool = False

    @property
    def schema(self) -> Schema:
        """The JSON schema of the arguments."""
        schema = arguments_schema(self.body, self.listed)
        required = {"required": list(self.required)} if self.required else {}
        return {**schema, "properties": {**self.further, **schema["properties"]}, **required}

    def check_names(self, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that the tool does not have.

        Raises:
            UnknownArgument: there is one.
        """
        known = argument_names(self.body, self.without) | self.further.keys()
        for name in arguments:
            if name not in known:
                matches = get_close_matches(name[:MAX_NAME_CHARS], known, n=1)
                hint = f" Did you mean '{matches[0]}'?" if matches else ""
                raise UnknownArgument(f"The tool '{self.name}' has no argument '{name[:MAX_NAME_CHARS]}'.{hint}")


def _validated(kind: type[_Body], values: Mapping[str, Any]) -> _Body:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        param = field_path(problem["loc"])
        raise InvalidRequest(f"'{param}': {problem['msg']}", param) from None
