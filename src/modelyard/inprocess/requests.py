"""What may be asked in process: OpenAI's fields as keywords, or a whole request, checked as HTTP's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypedDict, TypeVar

from pydantic import BaseModel, ValidationError

from modelyard.api.errors.responses import field_path
from modelyard.api.llama_cpp.tokenize import DetokenizeBody, TokenizeBody
from modelyard.api.openai.embeddings import EmbeddingsBody
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.rerank.routes import RerankBody
from modelyard.api.serving.closed_schema import closed
from modelyard.errors import InvalidRequest
from modelyard.inprocess.answers import ChatCompletionMessage
from modelyard.protocol.prompts import Tokens
from modelyard.yard.requests.requests import TokenizeRequest

Message = Mapping[str, Any] | ChatCompletionMessage
"""OpenAI's message: ``{"role": "user", "content": "Hello!"}``; or one that a model answered."""

ChatRequest = str | Sequence[Message] | Mapping[str, Any] | ChatCompletionRequest
"""A conversation: what a user says, or messages. Or a whole request, as the body of ``/v1/chat/completions``."""

EmbeddingInput = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
"""A text, texts, token ids, or lists of token ids."""


class ChatFields(TypedDict, total=False):
    """What can be said of a chat beside its messages; None is as if it were not said.

    The meaning and the bounds of each are those of the HTTP API: OpenAI's, with the reference's extensions.
    """

    max_tokens: int | None
    max_completion_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    logit_bias: Mapping[int, float] | None
    stop: str | list[str] | None
    n: int | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: dict[str, Any] | None
    grammar: dict[str, Any] | None
    logprobs: bool | None
    top_logprobs: int | None
    prediction: dict[str, Any] | None
    reasoning_effort: Literal["none", "off", "minimal", "low", "medium", "high", "xhigh"] | None
    enable_thinking: bool | None
    chat_template_kwargs: dict[str, Any] | None
    ignore_eos: bool | None
    keep_alive: float | str | None


_KEYWORDS = tuple(ChatFields.__annotations__)

_Body = TypeVar("_Body", bound=BaseModel)


def chat_request(
    request: ChatRequest, model: str | None, fields: Mapping[str, Any], *, stream: bool
) -> ChatCompletionRequest:
    """``request`` with ``fields``, which take the place of its own, to ``model``, or else to that of its own.

    Raises:
        InvalidRequest: it is no such request; it says which field is at fault.
    """
    match request:
        case ChatCompletionRequest():
            given = request.model_dump(exclude_unset=True, by_alias=True)
        case Mapping():
            given = dict(request)
        case _:
            given = {"messages": request}
    if unknown := next((name for name in fields if name not in _KEYWORDS), None):
        near = get_close_matches(unknown, _KEYWORDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise InvalidRequest(f"'{unknown}' is no field of a chat request.{hint}", unknown)
    given |= {**fields, "stream": stream}
    if not isinstance(given.get("messages"), str):
        given["messages"] = [_plain(message) for message in given.get("messages", ())]
    if model is not None:
        given["model"] = model
    return _checked(ChatCompletionRequest, given)


def embedding_request(inputs: EmbeddingInput, model: str | None) -> EmbeddingsBody:
    """``inputs``, to be embedded by ``model``.

    Raises:
        InvalidRequest: they are neither texts nor token ids, or too many.
    """
    given = inputs if isinstance(inputs, str) else [one if isinstance(one, str | int) else list(one) for one in inputs]
    return _checked(EmbeddingsBody, {"input": given, "model": model})


def rerank_request(
    query: str, documents: Sequence[str], model: str | None, *, top_n: int | None, max_tokens_per_doc: int | None
) -> RerankBody:
    """``documents``, to be ranked by ``model``.

    Raises:
        InvalidRequest: there are none, or too many, or one is no text.
    """
    given = {"query": query, "documents": list(documents), "model": model}
    return _checked(RerankBody, {**given, "top_n": top_n, "max_tokens_per_doc": max_tokens_per_doc})


def tokenize_request(text: str | Sequence[Message], model: str | None, *, add_special: bool) -> TokenizeRequest:
    """The tokens of ``text``, or of a conversation, as ``model`` has them.

    Raises:
        InvalidRequest: a message is none.
    """
    if isinstance(text, str):
        return _checked(TokenizeBody, {"prompt": text, "model": model, "add_special": add_special}).checked()
    return _checked(TokenizeBody, {"messages": [_plain(message) for message in text], "model": model}).checked()


def detokenize_request(tokens: Sequence[int], model: str | None) -> TokenizeRequest:
    """The text of ``tokens``.

    Raises:
        InvalidRequest: they are no token ids.
    """
    body = _checked(DetokenizeBody, {"tokens": list(tokens), "model": model})
    return TokenizeRequest(Tokens(tuple(body.tokens)), body.model)


def structure_format(structure: type[BaseModel]) -> dict[str, Any]:
    """The ``response_format`` whose answers are instances of ``structure``.

    Its objects have no other properties than it names, unless it says so: a model that may go on, does.
    """
    schema = closed(structure.model_json_schema(), "response_format")
    return {"type": "json_schema", "json_schema": {"name": structure.__name__, "schema": schema, "strict": True}}


def _plain(message: Any) -> Any:
    if isinstance(message, ChatCompletionMessage):
        return message.as_request()
    return dict(message) if isinstance(message, Mapping) else message


def _checked(body: type[_Body], given: Mapping[str, Any]) -> _Body:
    try:
        return body.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        param = field_path(problem["loc"])
        # Not chained: it is told, and says more of our types than of the request.
        raise InvalidRequest(f"'{param}': {problem['msg']}", param) from None
