"""Write the keyword arguments of requests in process from the HTTP API's schemas; a test fails when they are stale."""

from __future__ import annotations

import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator

from modelyard.api.llama_cpp.tokenize import TokenizeBody
from modelyard.api.openai.embeddings import EmbeddingsBody
from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest
from modelyard.api.rerank.routes import RerankBody

FIELDS = Path(__file__).parent.parent / "src" / "modelyard" / "inprocess" / "fields.py"

# The schema of a request, and its fields that are arguments of their own in the Python API, or implied by the method.
_REQUESTS: dict[str, tuple[type[BaseModel], str, frozenset[str]]] = {
    "ChatFields": (ChatCompletionRequest, "a chat", frozenset({"stream"})),
    "CompletionFields": (CompletionRequest, "a text completion", frozenset({"stream"})),
    "EmbeddingFields": (EmbeddingsBody, "embeddings", frozenset({"encoding_format"})),
    "RerankFields": (RerankBody, "a ranking", frozenset({"query", "documents", "texts", "return_text"})),
    "TokenizeFields": (
        TokenizeBody,
        "a tokenization",
        frozenset({"content", "prompt", "messages", "with_pieces", "return_token_strs"}),
    ),
}

# What a field takes in Python beside its type in JSON.
_ALSO = {"response_format": "type[BaseModel]", "messages": "str"}

# What a field takes in Python, in place of its type in JSON: functions, also by their name.
_IN_PLACE = {
    "tools": "Sequence[Mapping[str, Any] | Callable[..., Any] | FunctionTool] | None",
    "tool_choice": "str | Mapping[str, Any] | Callable[..., Any] | FunctionTool | None",
}

_HEAD = '''"""Keyword arguments of requests in process: the fields of the HTTP API, by the same names.

Generated from the schemas of the HTTP API by `make docs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from pydantic import BaseModel

    from modelyard.inprocess.tools.function_tool import FunctionTool
'''


def render_fields() -> str:
    """Return fields.py. The formatter has yet to break lines that are too long."""
    return _HEAD + "".join(_class(name, *request) for name, request in _REQUESTS.items())


def _class(name: str, body: type[BaseModel], what: str, own: frozenset[str]) -> str:
    lines = [
        f"class {name}(TypedDict, total=False):",
        f'    """Fields of {what}, as in ``{body.__name__}`` of the HTTP API; None leaves a field out."""',
        "",
    ]
    for field, info in body.model_fields.items():
        if field not in own and field != "model":
            annotation = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
            if field == "messages":
                # Beside dicts, messages of answers, whose type is not known here.
                annotation = list[Any]
            also = f"{_ALSO[field]} | " if field in _ALSO else ""
            written = _IN_PLACE.get(field) or f"{also}{_union(annotation)}"
            lines.append(f"    {info.alias or field}: {written}")
    return "\n\n" + "\n".join(lines) + "\n"


def _union(kind: Any) -> str:
    written = dict.fromkeys(_alternatives(kind))
    return " | ".join(sorted(written, key="None".__eq__))


def _alternatives(kind: Any) -> Iterator[str]:
    """Yield the types of values that a field takes, as they are written in Python."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        before = [each.json_schema_input_type for each in arguments[1:] if isinstance(each, BeforeValidator)]
        # A type of its own is what the validator takes in place of the field's.
        named = [each for each in before if isinstance(each, type | types.UnionType) or typing.get_origin(each)]
        yield from _alternatives(named[0] if named else arguments[0])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _alternatives(argument)
    elif origin is Literal:
        yield f"Literal[{', '.join(map(repr, arguments))}]"
    elif origin is list:
        # A list of other dicts would not be a list of mappings.
        yield f"Sequence[{_union(arguments[0])}]"
    elif origin is tuple:
        yield f"tuple[{', '.join(map(_union, arguments))}]"
    elif origin is dict:
        keys, values = map(_union, arguments)
        yield f"Mapping[{keys}, {values}]"
        if (keys, values) != ("str", "Any"):
            # Keys that are numbers in Python are texts in JSON.
            yield f"Mapping[int, {values}]"
    elif kind is type(None):
        yield "None"
    elif kind is Any:
        yield "Any"
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield "Mapping[str, Any]"
    else:
        yield kind.__name__


if __name__ == "__main__":
    FIELDS.write_text(render_fields(), "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(FIELDS)], check=True)
    print(f"Wrote {FIELDS.name}")
