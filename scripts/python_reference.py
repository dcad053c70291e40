"""The reference of the Python API, written by its own signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import modelyard
from modelyard.inprocess.answers import Answer

# The order in which a reader meets them; what is not named here has no page of its own.
_CLASSES = (
    "ModelBuilder",
    "TextModelBuilder",
    "MultimodalModelBuilder",
    "EmbeddingModelBuilder",
    "GgufModelBuilder",
    "MultiModelBuilder",
    "ConfigFile",
    "IsqType",
    "Model",
    "ChatStream",
    "CompletionStream",
    "AsyncModel",
    "AsyncChatStream",
    "AsyncCompletionStream",
    "ChatCompletion",
    "ChatCompletionMessage",
    "ChatCompletionChunk",
    "Completion",
    "EmbeddingResponse",
    "RerankResponse",
    "FunctionTool",
    "ToolApproval",
    "ToolInfo",
    "LoadProgress",
    "Plan",
    "Server",
)
_FUNCTIONS = ("from_config", "start_server", "serve", "serve_async", "create_app")
# Methods of pydantic, and of the program itself.
_UNLISTED = frozenset({"model_post_init", "visible_to"})
# Whose methods differ from those of another in that they are awaited.
_TWINS = {"AsyncModel": "Model"}


def render_python_reference() -> str:
    """Markdown: each class with its methods, then each function."""
    parts = [part for name in _CLASSES for part in _class(name)]
    parts += [part for name in _FUNCTIONS for part in _callable(name, getattr(modelyard, name), "###")]
    return "\n\n".join(parts) + "\n"


def _class(name: str) -> Iterator[str]:
    kind = getattr(modelyard, name)
    yield f"### {name}"
    bases = [base.__name__ for base in kind.__mro__[1:] if base.__name__ in modelyard.__all__]
    if bases:
        yield f"Has all that {bases[0]} has."
    yield _markdown(inspect.getdoc(kind) or "")
    if name == "IsqType":
        yield ", ".join(f"`{each.name}`" for each in kind) + "."
    twin = getattr(modelyard, _TWINS[name]) if name in _TWINS else None
    for method, function in _methods(kind):
        if inspect.getdoc(function) == inspect.getdoc(getattr(twin, method, None)):
            continue
        whole = f"{method}_with_model"
        # Whose docstring is that of its twin.
        if inspect.getdoc(function) == inspect.getdoc(getattr(kind, whole, None)):
            yield _heading(f"{name}.{method}", function, "####")
            yield f"Call `{whole}`."
        else:
            yield from _callable(f"{name}.{method}", function, "####")


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    inherited = {} if any(base.__name__ in modelyard.__all__ for base in kind.__mro__[1:]) else _common(kind)
    for name, member in {**inherited, **vars(kind)}.items():
        if not name.startswith("_") and name not in _UNLISTED and inspect.isfunction(member):
            yield name, member


def _common(kind: type) -> dict[str, Any]:
    """What a class has of bases that are not public."""
    ours = [base for base in kind.__mro__[1:] if base.__module__.startswith("modelyard.") and base is not Answer]
    return {
        name: member
        for base in ours
        for name, member in vars(base).items()
        if name not in vars(kind) and inspect.isfunction(member)
    }


def _callable(name: str, function: Any, level: str) -> Iterator[str]:
    yield _heading(name, function, level)
    yield _markdown(inspect.getdoc(function) or "")


def _heading(name: str, function: Any, level: str) -> str:
    awaited = "await " if inspect.iscoroutinefunction(function) else ""
    return f"{level} `{awaited}{name}{_signature(function)}`"


class _Written(str):
    """A type as it was written: a signature shows it without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _as_written(function: Any) -> Any:
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__, copy.__annotations__ = function.__kwdefaults__, function.__annotations__
    return copy


def _signature(function: Any) -> str:
    # As it is written: a request shows its fields one by one, which the HTTP API describes.
    signature = inspect.Signature.from_callable(_as_written(function))
    parameters = [
        each.replace(annotation=_Written(each.annotation)) if isinstance(each.annotation, str) else each
        for each in signature.parameters.values()
        if each.name != "self"
    ]
    returned = signature.return_annotation
    written = signature.replace(
        parameters=parameters, return_annotation=_Written(returned) if isinstance(returned, str) else returned
    )
    return re.sub(r"\*\*fields: Unpack\[\w+\]", "**fields", str(written))


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: its sections become lists, its examples blocks that no test runs."""
    lines: list[str] = []
    is_section = is_example = False
    for line in docstring.split("\n"):
        indented = line.startswith("    ")
        if is_example and line and not indented:
            lines += ["```", ""]
            is_example = False
        if re.fullmatch(r"(Args|Raises|Attributes):", line):
            lines += [f"*{line}*", ""]
            is_section = True
        elif is_section and re.match(r"    \S", line):
            lines.append(f"- {_code(line.strip())}")
        elif is_section and indented:
            lines[-1] += f" {_code(line.strip())}"
        elif indented and not is_example:
            lines += ["```text", line.removeprefix("    ")]
            is_example = True
        elif is_example:
            lines.append(line.removeprefix("    "))
        else:
            is_section = is_section and not line
            lines.append(_code(line))
    if is_example:
        lines.append("```")
    return re.sub(r"\n+(```\n|```$)", r"\n\1", "\n".join(lines)).strip()


def _code(text: str) -> str:
    return text.replace("``", "`")
