"""Requests in process: the fields of the HTTP API as keywords, or a whole request, validated by its schemas."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from modelyard.api.errors.rendering import field_path
from modelyard.api.llama_cpp.tokenize import DetokenizeBody, TokenizeBody
from modelyard.api.openai.embeddings import EmbeddingsBody
from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest
from modelyard.api.rerank.routes import RerankBody
from modelyard.api.serving.ignored_fields import ignored_fields
from modelyard.api.serving.json_body import MAX_DEPTH
from modelyard.errors import InvalidRequest
from modelyard.inprocess.answers import ChatCompletionMessage
from modelyard.inprocess.caller import warn
from modelyard.protocol.prompts import Tokens
from modelyard.yard.requests.requests import TokenizeRequest, WaitOptions

Message = Mapping[str, Any] | ChatCompletionMessage
"""A message of OpenAI, ``{"role": "user", "content": "Hello!"}``, or the message of an answer."""

ChatRequest = str | Sequence[Message] | Mapping[str, Any] | ChatCompletionRequest
"""A conversation: the text of a user message, or messages, or a whole body of ``/v1/chat/completions``."""

TextRequest = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Any] | CompletionRequest
"""What is continued: a text, texts, token ids, lists of token ids, or a whole body of ``/v1/completions``."""

EmbeddingInput = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
"""A text, texts, token ids, or lists of token ids."""

_Body = TypeVar("_Body", bound=BaseModel)


def chat_request(
    request: ChatRequest | None, model: str | None, fields: Mapping[str, Any], *, stream: bool
) -> ChatCompletionRequest:
    """Return ``request`` with ``fields`` in place of its own; ``model``, if given, replaces its model.

    ``fields`` alone may be a request.

    Raises:
        InvalidRequest: the request is invalid; the error names the field at fault.
    """
    match request:
        case ChatCompletionRequest():
            values = request.model_dump(exclude_unset=True, by_alias=True)
        case ChatCompletionMessage() | {"role": _}:
            values = {"messages": [request]}
        case Mapping():
            values = dict(request)
        case None:
            values = {}
        case str() | Sequence():
            _check_given_once("messages", fields)
            values = {"messages": request}
        case _:
            raise InvalidRequest(
                f"A chat is the text of a user message, a list of messages, or a mapping with 'messages'; "
                f"this is {shown(request)}.",
                "messages",
            )
    given = {**values, **fields}
    if given.get("messages") is None:
        hint = _hint("messages", given.keys() - {"messages"})
        raise InvalidRequest(
            hint or "'messages' is missing: the text of a user message, or a list of messages.", "messages"
        )
    _check_no_answers(given["messages"])
    body = _request(ChatCompletionRequest, values, model, fields, stream=stream)
    _check_contents(given["messages"])
    return body


def completion_request(
    request: TextRequest | None, model: str | None, fields: Mapping[str, Any], *, stream: bool
) -> CompletionRequest:
    """Return ``request`` with ``fields`` in place of its own; ``model``, if given, replaces its model.

    ``fields`` alone may be a request.

    Raises:
        InvalidRequest: the request is invalid; the error names the field at fault.
    """
    match request:
        case CompletionRequest():
            values = request.model_dump(exclude_unset=True, by_alias=True)
        case Mapping():
            values = dict(request)
        case None:
            values = {}
        case _:
            _check_given_once("prompt", fields)
            values = {"prompt": request}
    if "messages" in {**values, **fields}:
        raise InvalidRequest("A text completion has no 'messages'. Call send_chat_request to answer them.", "messages")
    return _request(CompletionRequest, values, model, fields, stream=stream)


def embedding_request(inputs: EmbeddingInput | None, model: str | None, fields: Mapping[str, Any]) -> EmbeddingsBody:
    """Return the request to embed ``inputs``, or what ``fields`` have as ``input``.

    Raises:
        InvalidRequest: the inputs are neither texts nor token ids, or too many, or a field is invalid.
    """
    if inputs is None:
        return _request(EmbeddingsBody, {}, model, fields)
    _check_given_once("input", fields)
    return _request(EmbeddingsBody, {"input": inputs}, model, fields)


def rerank_request(query: str, documents: Sequence[str], model: str | None, fields: Mapping[str, Any]) -> RerankBody:
    """Return the request to rank ``documents``.

    Raises:
        InvalidRequest: there are no documents or too many, one of them is no text, or a field is invalid.
    """
    if isinstance(documents, str):
        raise InvalidRequest("'documents' must be a list of texts; this is one text.", "documents")
    body = _request(RerankBody, {"query": query, "documents": documents}, model, fields)
    body.checked()
    return body


def tokenize_request(text: str | Sequence[Message], model: str | None, fields: Mapping[str, Any]) -> TokenizeRequest:
    """Return the request to tokenize a text or a conversation.

    Raises:
        InvalidRequest: a message is malformed, or a field is invalid.
    """
    values = {"prompt" if isinstance(text, str) else "messages": text}
    body = _request(TokenizeBody, values, model, fields)
    return replace(body.checked(), wait_options=WaitOptions(keep_alive_s=body.keep_alive))


def detokenize_request(tokens: Sequence[int], model: str | None) -> TokenizeRequest:
    """Return the request for the text of ``tokens``.

    Raises:
        InvalidRequest: ``tokens`` are no token ids.
    """
    body = _request(DetokenizeBody, {"tokens": tokens}, model, {})
    return TokenizeRequest(Tokens(tuple(body.tokens)), body.model)


def structure_format(structure: type[BaseModel]) -> dict[str, Any]:
    """Return the ``response_format`` whose answers are instances of ``structure``.

    It is not strict: the structure checks what no grammar can hold, such as a pattern with a look-ahead.

    Raises:
        InvalidRequest: ``structure`` is no pydantic model.
    """
    if not (isinstance(structure, type) and issubclass(structure, BaseModel)):
        raise InvalidRequest(f"A structure is a class derived from pydantic.BaseModel; this is {shown(structure)}.")
    schema = structure.model_json_schema()
    return {"type": "json_schema", "json_schema": {"name": structure.__name__, "schema": schema}}


def check_unstructured(request: ChatRequest | None, fields: Mapping[str, Any], structure: type[BaseModel]) -> None:
    """Refuse a ``response_format`` beside a structure, which is one.

    Raises:
        InvalidRequest: the request or its fields have one that is not the structure itself.
    """
    if isinstance(request, ChatCompletionRequest):
        own = request.response_format
    else:
        own = request.get("response_format") if isinstance(request, Mapping) else None
    for given in (own, fields.get("response_format")):
        if given is not None and given is not structure:
            raise InvalidRequest(
                f"'response_format' is {shown(given)}, and the answer is to be an instance of {structure.__name__}. "
                "Leave 'response_format' out, or call send_chat_request.",
                "response_format",
            )


def _request(
    body: type[_Body],
    values: Mapping[str, Any],
    model: str | None,
    fields: Mapping[str, Any],
    *,
    stream: bool | None = None,
) -> _Body:
    """Return the request of ``values`` and ``fields``; warn of parts that have no effect."""
    if "stream" in fields:
        raise InvalidRequest(
            "'stream' is no keyword: stream_chat_request and stream_completion_request return streams.", "stream"
        )
    given = {**values, **fields}
    _check_names(body, given)
    if stream is not None:
        given["stream"] = stream
    if model is not None:
        given["model"] = model
    request = _validate(body, {name: as_json(value) for name, value in given.items()})
    if ignored := ignored_fields(request):
        warn(f"Without effect on the answer: {', '.join(ignored)}")
    return request


def _check_given_once(name: str, fields: Mapping[str, Any]) -> None:
    if name in fields:
        raise InvalidRequest(f"'{name}' is given twice: by its name, and as the argument without a name.", name)


@cache
def _names(body: type[BaseModel]) -> frozenset[str]:
    """Return the names of the fields of a body, as a caller writes them."""
    return frozenset(info.alias or name for name, info in body.model_fields.items())


def _check_names(body: type[BaseModel], given: Mapping[str, Any]) -> None:
    known = _names(body)
    # Names of other servers, which the schema refuses with a reason of their own, or which change nothing.
    others: Container[str] = getattr(body, "known_extras", ())
    for name in given:
        if name not in known and name not in others:
            what = body.__name__.removesuffix("Body").removesuffix("Request")
            raise InvalidRequest(_hint(name, known) or f"'{name}' is no field of {what}Request.", str(name))


def _hint(name: str, known: Set[str]) -> str:
    matches = get_close_matches(str(name), list(known), n=1)
    if not matches:
        return ""
    if name == "messages":
        return f"'messages' is missing. Did you mean it where you wrote '{matches[0]}'?"
    return f"There is no field '{name}'. Did you mean '{matches[0]}'?"


def _check_no_answers(messages: Any) -> None:
    """Refuse answers among messages: what is said next is an answer's message."""
    if not isinstance(messages, Sequence):
        return
    for index, message in enumerate(messages):
        for part in ("choices", "message"):
            if isinstance(message, BaseModel) and hasattr(message, part):
                path = "choices[0].message" if part == "choices" else part
                raise InvalidRequest(
                    f"'messages[{index}]' is a {type(message).__name__}, no message. Pass its {path}.",
                    f"messages[{index}]",
                )


def _check_contents(messages: Any) -> None:
    """Refuse messages that say nothing because their content has another name."""
    if isinstance(messages, str):
        return
    for index, message in enumerate(messages):
        if isinstance(message, Mapping) and message.get("role") != "assistant" and "content" not in message:
            matches = get_close_matches("content", [str(key) for key in message if key != "role"], n=1)
            hint = f" Did you mean it where you wrote '{matches[0]}'?" if matches else ""
            raise InvalidRequest(f"'messages[{index}].content' is missing.{hint}", f"messages[{index}].content")


def as_json(value: Any, depth: int = 0) -> Any:
    """Return ``value`` as the schemas of the HTTP API take it: of dicts, lists, texts and numbers.

    Tuples and other sequences become lists, NumPy's numbers and arrays Python's, messages of answers and other
    pydantic models dicts, and a class derived from ``BaseModel`` the ``response_format`` of its instances.

    Args:
        value: the value.
        depth: how many lists and objects it is within.

    Raises:
        InvalidRequest: a class is no pydantic model, or the value nests deeper than a body of the HTTP API may.
    """
    if depth > MAX_DEPTH:
        raise InvalidRequest(
            f"The request has more than {MAX_DEPTH} objects and lists within one another, or one that contains itself."
        )
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, type):
        return structure_format(value)
    if isinstance(value, ChatCompletionMessage):
        return value.as_request()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, Mapping):
        return {str(key): as_json(each, depth + 1) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Sequence | Set | Iterator) and not isinstance(value, bytes | bytearray):
        return [as_json(each, depth + 1) for each in value]
    return value


def _validate(body: type[_Body], values: Mapping[str, Any]) -> _Body:
    try:
        return body.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        param = field_path(problem["loc"])
        given = "" if problem["type"] == "missing" else f"; it is {shown(problem['input'])}"
        # The names of internal types say nothing to a caller.
        message = re.sub(r" or instance of \w+| after validation", "", problem["msg"])
        raise InvalidRequest(f"'{param}': {message}{given}.", param) from None


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def shown(value: object) -> str:
    """Return a value of a caller as an error shows it: shortened, and with its type."""
    return f"{_SHORT.repr(value)} ({type(value).__name__})"
