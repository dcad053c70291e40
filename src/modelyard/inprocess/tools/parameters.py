"""The parameters of a function: their JSON schema, and the check of what a model passes.

A function's signature becomes a pydantic model, whose fields have names of their own: a parameter may be called
``schema`` or ``copy``, which no field may.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, SchemaError, to_jsonable_python

from modelyard.errors import InvalidRequest
from modelyard.inprocess.tools.callables import routine_of
from modelyard.inprocess.tools.plain_schema import plain_schema
from modelyard.system.printable import shortened

MAX_PROBLEMS: Final = 5
"""Problems of one call's arguments that its result lists."""

MAX_VALUE_CHARS: Final = 80
"""Characters that it shows of an argument."""

Function = Callable[..., Any]

# What pydantic raises for a type that has no JSON schema, or whose values it cannot check.
_UNUSABLE: Final = (PydanticUserError, SchemaError, NameError, TypeError)

_VARIABLE: Final[Mapping[Any, str]] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


class ArgumentsRefused(Exception):
    """The arguments of a call do not suit the function. The text is for the model."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter of a function.

    Attributes:
        name: as models and the function call it.
        field: its name in the pydantic model.
        is_positional: whether the function takes it by position alone.
        has_own_default: whether the function itself knows the value where a call leaves it out.
    """

    name: str
    field: str
    is_positional: bool
    has_own_default: bool


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function.

    Attributes:
        schema: JSON schema of an object with all of them.
    """

    schema: Mapping[str, Any]
    _parameters: Sequence[_Parameter]
    _model: type[BaseModel]

    def checked(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call, by position and by name, as the types of the function.

        Raises:
            ArgumentsRefused: they do not suit the types; the text lists the problems.
        """
        try:
            values = self._model.model_validate_json(json.dumps(arguments))
        except ValidationError as invalid:
            raise ArgumentsRefused(_problems(invalid)) from None
        positional: list[Any] = []
        by_name: dict[str, Any] = {}
        for parameter in self._parameters:
            is_given = parameter.field in values.model_fields_set
            if parameter.is_positional:
                # What follows a position that is left out can only be passed if that position is passed, too.
                positional.append(getattr(values, parameter.field))
            elif is_given or not parameter.has_own_default:
                by_name[parameter.name] = getattr(values, parameter.field)
        return positional, by_name


def read_parameters(function: Function, name: str, described: Mapping[str, str]) -> Parameters:
    """Return the parameters of ``function``.

    Arguments that a ``functools.partial`` gives are not parameters: the model does not see them.

    Args:
        function: what is called.
        name: of the tool, for errors.
        described: descriptions of parameters, by name, for those whose annotation has none.

    Raises:
        InvalidRequest: the function takes ``*args`` or ``**kwargs``, its signature or an annotation cannot be read, or
            a type has no JSON schema.
    """
    given = function.keywords if isinstance(function, partial) else {}
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as unknown:
        raise InvalidRequest(
            f"The tool '{name}' cannot be called by a model: its signature is unknown ({unknown}). Wrap it in a "
            "function with annotated parameters.",
            "tools",
        ) from unknown
    hints = _hints(function, name)
    fields: dict[str, tuple[Any, FieldInfo]] = {}
    parameters: list[_Parameter] = []
    for index, parameter in enumerate(each for each in signature.parameters.values() if each.name not in given):
        if parameter.kind in _VARIABLE:
            raise InvalidRequest(
                f"The tool '{name}' takes {_VARIABLE[parameter.kind]}{parameter.name}, which a JSON schema cannot "
                "describe. Name each of its parameters, or take a list or a dict.",
                "tools",
            )
        annotation = hints.get(parameter.name, Any)
        field = f"field_{index}"
        fields[field] = (annotation, _field(parameter, annotation, described.get(parameter.name)))
        is_own = parameter.default is not parameter.empty and not isinstance(parameter.default, FieldInfo)
        is_positional = parameter.kind is parameter.POSITIONAL_ONLY
        parameters.append(_Parameter(parameter.name, field, is_positional, is_own))
    try:
        model = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)  # type: ignore[call-overload]
        schema = plain_schema(model.model_json_schema())
    except _UNUSABLE as untyped:
        raise _without_schema(name, parameters, hints, untyped) from untyped
    return Parameters(schema, tuple(parameters), model)


def _hints(function: Function, name: str) -> dict[str, Any]:
    """Return the annotations of a function, as types."""
    try:
        return get_type_hints(routine_of(function), include_extras=True)
    except NameError as unknown:
        raise InvalidRequest(
            f"An annotation of the tool '{name}' names what its module does not: {unknown}. Annotations that are "
            "written as text, also by 'from __future__ import annotations', can only name what is global.",
            "tools",
        ) from unknown
    except (TypeError, SyntaxError) as unreadable:
        raise InvalidRequest(f"An annotation of the tool '{name}' is no type: {unreadable}.", "tools") from unreadable


def _field(parameter: inspect.Parameter, annotation: Any, described: str | None) -> FieldInfo:
    """Return the field of a parameter, whose other properties its annotation has."""
    own: dict[str, Any] = {"alias": parameter.name}
    default = parameter.default
    if isinstance(default, FieldInfo):
        # As pydantic has it: ``days: int = Field(3, ge=1)``.
        if default.description is None and (text := _description(annotation) or described):
            own["description"] = text
        names = {"validation_alias": parameter.name, "serialization_alias": parameter.name}
        return FieldInfo.merge_field_infos(default, **own, **names)
    if not _has_described_field(annotation) and (text := _description(annotation) or described):
        own["description"] = text
    if default is parameter.empty:
        return Field(**own)  # type: ignore[no-any-return]
    # The function itself has the default: a factory keeps what is no JSON out of the schema.
    own["default_factory"] = lambda: default
    with suppress(PydanticSerializationError):
        own["json_schema_extra"] = {"default": to_jsonable_python(default)}
    return Field(**own)  # type: ignore[no-any-return]


def _has_described_field(annotation: Any) -> bool:
    return any(isinstance(each, FieldInfo) and each.description for each in _extras(annotation))


def _description(annotation: Any) -> str:
    """Return the text in ``Annotated[int, "how many"]``, also where it is a ``Doc``; "" if there is none."""
    for each in _extras(annotation):
        text = each if isinstance(each, str) else getattr(each, "documentation", None)
        if isinstance(text, str):
            return text
    return ""


def _extras(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _without_schema(
    name: str, parameters: Sequence[_Parameter], hints: Mapping[str, Any], error: Exception
) -> InvalidRequest:
    """Return the error that names the parameter whose type has no JSON schema."""
    for parameter in parameters:
        try:
            TypeAdapter(hints.get(parameter.name, Any)).json_schema()
        except _UNUSABLE as unusable:
            kind = hints[parameter.name]
            shown = kind.__qualname__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)
            why = "has no JSON schema. Take texts, numbers, lists, dicts, dataclasses or pydantic models."
            if isinstance(error, SchemaError):
                why = f"cannot be checked: {str(error).splitlines()[-1].strip()}"
            elif isinstance(unusable, PydanticUserError) and unusable.code == "typed-dict-version":
                why = "has no JSON schema before Python 3.12. Take the TypedDict of the package typing_extensions."
            return InvalidRequest(
                f"The tool '{name}' cannot be described to a model: its parameter '{parameter.name}' has the type "
                f"{shown.replace('typing.', '')}, which {why}",
                "tools",
            )
    return InvalidRequest(f"The tool '{name}' cannot be described to a model: {error}", "tools")


def _problems(invalid: ValidationError) -> str:
    problems = invalid.errors(include_url=False, include_context=False)
    lines = []
    for problem in problems[:MAX_PROBLEMS]:
        where = ".".join(map(str, problem["loc"]))
        given = ""
        if problem["type"] not in ("missing", "extra_forbidden"):
            value = json.dumps(problem["input"], default=str, ensure_ascii=False)
            given = f" (given: {shortened(value, MAX_VALUE_CHARS)})"
        lines.append(f"{where}: {problem['msg']}{given}" if where else f"{problem['msg']}{given}")
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return f"The arguments are invalid. {'; '.join(lines)}."
