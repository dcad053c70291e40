"""Requests in process: OpenAI's fields as keywords, or a whole request, validated by the schemas of the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypedDict, TypeVar

from pydantic import BaseModel, ValidationError

from modelyard.api.errors.responses import field_path
from modelyard.api.llama_cpp.tokenize import DetokenizeBody, TokenizeBody
from modelyard.api.openai.embeddings import EmbeddingsBody
from modelyard.api.openai.reasoning_fields import Effort
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.rerank.routes import RerankBody
from modelyard.errors import InvalidRequest
from modelyard.inprocess.answers import ChatCompletionMessage
from modelyard.protocol.prompts import Tokens
from modelyard.yard.requests.requests import TokenizeRequest

Message = Mapping[str, Any] | ChatCompletionMessage
"""A message of OpenAI, ``{"role": "user", "content": "Hello!"}``, or the message of an answer."""

ChatRequest = str | Sequence[Message] | Mapping[str, Any] | ChatCompletionRequest
"""A conversation: the text of a user message, or messages, or a whole body of ``/v1/chat/completions``."""

EmbeddingInput = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
"""A text, texts, token ids, or lists of token ids."""


class ChatFields(TypedDict, total=False):
    """Keyword arguments of a chat beside its messages; None leaves a field out.

    Each field has the meaning and the bounds of its namesake in ``ChatCompletionRequest``; a test keeps the names
    equal.
    """

    max_tokens: int | None
    max_completion_tokens: int | None
    n_predict: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    top_n_sigma: float | None
    xtc_probability: float | None
    xtc_threshold: float | None
    dynatemp_range: float | None
    dynatemp_exponent: float | None
    mirostat: int | None
    mirostat_tau: float | None
    mirostat_eta: float | None
    samplers: str | list[str] | None
    repetition_penalty: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    stop: str | list[str] | None
    stop_token_ids: list[int] | None
    include_stop_str_in_output: bool | None
    skip_special_tokens: bool | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    dry_penalty_last_n: int | None
    dry_sequence_breakers: list[str] | None
    n: int | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: dict[str, Any] | None
    grammar: dict[str, Any] | str | None
    json_schema: dict[str, Any] | None
    structured_outputs: dict[str, Any] | None
    guided_json: dict[str, Any] | str | None
    guided_regex: str | None
    guided_choice: list[str] | None
    guided_grammar: str | None
    logprobs: bool | None
    top_logprobs: int | None
    prediction: dict[str, Any] | None
    reasoning_effort: Effort | None
    enable_thinking: bool | None
    reasoning: dict[str, Any] | None
    thinking: dict[str, Any] | None
    thinking_budget: int | None
    reasoning_budget: int | None
    reasoning_budget_tokens: int | None
    thinking_budget_tokens: int | None
    chat_template_kwargs: dict[str, Any] | None
    continue_final_message: bool | None
    add_generation_prompt: bool | None
    ignore_eos: bool | None
    store: bool | None
    verbosity: Literal["low", "medium", "high"] | None
    web_search_options: dict[str, Any] | None
    keep_alive: float | str | None


_KEYWORDS = tuple(ChatFields.__annotations__)

_Body = TypeVar("_Body", bound=BaseModel)


def chat_request(
    request: ChatRequest, model: str | None, fields: Mapping[str, Any], *, stream: bool
) -> ChatCompletionRequest:
    """Return ``request`` with ``fields`` in place of its own; ``model``, if given, replaces its model.

    Raises:
        InvalidRequest: the request is invalid; the error names the field at fault.
    """
    match request:
        case ChatCompletionRequest():
            values = request.model_dump(exclude_unset=True, by_alias=True)
        case Mapping():
            values = dict(request)
        case _:
            values = {"messages": request}
    if unknown := next((name for name in fields if name not in _KEYWORDS), None):
        matches = get_close_matches(unknown, _KEYWORDS, n=1)
        hint = f" Did you mean '{matches[0]}'?" if matches else ""
        raise InvalidRequest(f"'{unknown}' is no field of a chat request.{hint}", unknown)
    values |= {**fields, "stream": stream}
    if not isinstance(values.get("messages"), str):
        values["messages"] = [_message_as_dict(message) for message in values.get("messages", ())]
    if model is not None:
        values["model"] = model
    return _validate(ChatCompletionRequest, values)


def embedding_request(inputs: EmbeddingInput, model: str | None) -> EmbeddingsBody:
    """Return the request to embed ``inputs``.

    Raises:
        InvalidRequest: the inputs are neither texts nor token ids, or too many.
    """
    values = inputs if isinstance(inputs, str) else [one if isinstance(one, str | int) else list(one) for one in inputs]
    return _validate(EmbeddingsBody, {"input": values, "model": model})


def rerank_request(
    query: str, documents: Sequence[str], model: str | None, *, top_n: int | None, max_tokens_per_doc: int | None
) -> RerankBody:
    """Return the request to rank ``documents``.

    Raises:
        InvalidRequest: there are no documents or too many, or one of them is no text.
    """
    values = {"query": query, "documents": list(documents), "model": model}
    return _validate(RerankBody, {**values, "top_n": top_n, "max_tokens_per_doc": max_tokens_per_doc})


def tokenize_request(text: str | Sequence[Message], model: str | None, *, add_special: bool) -> TokenizeRequest:
    """Return the request to tokenize a text or a conversation.

    Raises:
        InvalidRequest: a message is malformed.
    """
    if isinstance(text, str):
        return _validate(TokenizeBody, {"prompt": text, "model": model, "add_special": add_special}).checked()
    return _validate(
        TokenizeBody, {"messages": [_message_as_dict(message) for message in text], "model": model}
    ).checked()


def detokenize_request(tokens: Sequence[int], model: str | None) -> TokenizeRequest:
    """Return the request for the text of ``tokens``.

    Raises:
        InvalidRequest: ``tokens`` are no token ids.
    """
    body = _validate(DetokenizeBody, {"tokens": list(tokens), "model": model})
    return TokenizeRequest(Tokens(tuple(body.tokens)), body.model)


def structure_format(structure: type[BaseModel]) -> dict[str, Any]:
    """Return the ``response_format`` whose answers are instances of ``structure``.

    It is not strict: the structure checks what no grammar can hold, such as a pattern with a look-ahead.
    """
    schema = structure.model_json_schema()
    return {"type": "json_schema", "json_schema": {"name": structure.__name__, "schema": schema}}


def _message_as_dict(message: Any) -> Any:
    if isinstance(message, ChatCompletionMessage):
        return message.as_request()
    return dict(message) if isinstance(message, Mapping) else message


def _validate(body: type[_Body], values: Mapping[str, Any]) -> _Body:
    try:
        return body.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        param = field_path(problem["loc"])
        # The message repeats the problem; the rest of pydantic's error describes internal types.
        raise InvalidRequest(f"'{param}': {problem['msg']}", param) from None
