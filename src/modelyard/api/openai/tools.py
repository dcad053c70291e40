"""Tools and answer formats of OpenAI's requests, with the grammars of mistral.rs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from modelyard.agent.tools import ServerTool
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import NamedTool, ToolChoice

MAX_TOOLS = 512

_Tool = TypeVar("_Tool")
Tools = Annotated[list[_Tool], Field(max_length=MAX_TOOLS, fail_fast=True)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


class FunctionDefinition(_Part):
    """A function that the model may call."""

    known_extras: ClassVar = PASSED_ON

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="JSON schema of the arguments.")
    strict: bool | None = Field(default=None, description="Whether the arguments are constrained to the schema.")


class ToolDefinition(_Part):
    """OpenAI's ``tools[]``."""

    known_extras: ClassVar = PASSED_ON

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(_Part):
    """A function by its name."""

    name: str


class NamedFunction(_Part):
    """The function that the model must call."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(_Part):
    """The tools that the model may call, or of which it must call one."""

    mode: Literal["auto", "required"]
    tools: Tools[NamedFunction]


class AllowedToolsChoice(_Part):
    """OpenAI's ``{"type": "allowed_tools"}``."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _by_type(value: Any) -> str:
    if isinstance(value, str):
        return "word"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "allowed" if kind == "allowed_tools" else "named"


ToolChoiceField = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")]
    | Annotated[NamedFunction, Tag("named")]
    | Annotated[AllowedToolsChoice, Tag("allowed")],
    Discriminator(_by_type),
]


class JsonSchemaFormat(_Part):
    """A schema that the answer must follow."""

    # The schema itself describes its fields.
    known_extras: ClassVar = frozenset({"description"})

    name: str = ""
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Part):
    """OpenAI's ``response_format``; a schema may also be at its top level, as in llama.cpp and in Responses."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema", description="A schema of the answer.")
    name: str | None = None
    strict: bool | None = None

    def to_constraint(self) -> dict[str, Any]:
        """Return the constraint in the form that the engine reads.

        Raises:
            InvalidRequest: it needs a schema and has none, or has two.
        """
        nested = None if self.json_schema is None else self.json_schema.schema_
        schema = self.schema_ if nested is None else nested
        if nested is not None and self.schema_ is not None and nested != self.schema_:
            raise InvalidRequest("'response_format' has two schemas. Leave out 'schema'.", "response_format")
        if self.type == "text" or (self.type == "json_object" and schema is None):
            return {"type": self.type}
        if schema is None:
            raise InvalidRequest(
                "'response_format.json_schema.schema' must be a JSON schema, an object.", "response_format"
            )
        is_strict = bool(self.strict or (self.json_schema is not None and self.json_schema.strict))
        return schema_format(schema, "response_format", strict=is_strict)


def schema_format(schema: Mapping[str, Any], param: str = "response_format", *, strict: bool = False) -> dict[str, Any]:
    """Return the engine's constraint for a JSON schema.

    Args:
        schema: the schema.
        param: the field of the request that it comes from.
        strict: whether to refuse it if a part of it cannot be enforced.
    """
    return {"type": "json_schema", "json_schema": {"schema": schema, "strict": strict}, "param": param}


class GrammarField(_Part):
    """The ``grammar`` of mistral.rs, which the answer must follow."""

    type: Literal["regex", "json_schema", "lark", "llguidance"]
    value: Any

    def to_constraint(self) -> dict[str, Any]:
        """Return the constraint in the form that the engine reads."""
        return {"type": self.type, "value": self.value}


def chosen_tools(
    tools: list[ToolDefinition], choice: ToolChoiceField | None, server_tools: Collection[str] = ()
) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """Return the tools of the client for the prompt, in OpenAI's shape, and whether the model must call a tool.

    Args:
        tools: those of the client.
        choice: as the request has it.
        server_tools: names of the server's tools, which ``choice`` may name, too.

    Raises:
        InvalidRequest: two tools have the same name, or ``choice`` names or requires one that does not exist.
    """
    names = [tool.function.name for tool in tools]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"Two tools are named '{duplicate}'. Give each a name of its own.", "tools")
    offered = tools
    chosen: ToolChoice
    match choice:
        case None:
            chosen = "auto"
        case NamedFunction():
            _check_known(choice.function.name, [*names, *server_tools])
            chosen = NamedTool(choice.function.name)
        case AllowedToolsChoice():
            allowed = _allowed_names(choice)
            for name in allowed:
                _check_known(name, [*names, *server_tools])
            server_tools = [name for name in server_tools if name in allowed]
            offered = [tool for tool in tools if tool.function.name in allowed]
            chosen = choice.allowed_tools.mode
        case mode:
            chosen = mode
    if chosen == "required" and not (offered or server_tools):
        raise InvalidRequest(
            "'tool_choice' is 'required', but there are no tools. Give some in 'tools'.", "tool_choice"
        )
    return tuple(tool.model_dump(exclude_none=True) for tool in offered), chosen


def allowed_server_tools(choice: ToolChoiceField | None, tools: Sequence[ServerTool]) -> tuple[ServerTool, ...]:
    """Return those of the server's tools that ``choice`` lets the model call."""
    if not isinstance(choice, AllowedToolsChoice):
        return tuple(tools)
    allowed = _allowed_names(choice)
    return tuple(tool for tool in tools if tool.name in allowed)


def _allowed_names(choice: AllowedToolsChoice) -> list[str]:
    return [tool.function.name for tool in choice.allowed_tools.tools]


def _check_known(name: str, names: list[str]) -> None:
    if name not in names:
        known = ", ".join(names) or "none"
        raise InvalidRequest(f"'tool_choice' names '{name}', which is not one of the tools: {known}.", "tool_choice")
