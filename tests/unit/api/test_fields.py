"""Every field that the official clients can send is supported, or refused by name unless its value has no effect.

A field that a new version of a client adds fails here until it is in one of both lists.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import anthropic.types.beta.message_create_params
import anthropic.types.message_count_tokens_params
import anthropic.types.message_create_params
import cohere
import ollama
import openai.types.chat.completion_create_params
import openai.types.completion_create_params
import openai.types.embedding_create_params
import openai.types.responses.response_create_params
import pytest
from ollama import _types as ollama_types
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.responses import ResponseTextConfigParam
from openai.types.shared_params import Reasoning
from pydantic import BaseModel, ValidationError

from modelyard.api.anthropic import schema as anthropic_schema
from modelyard.api.llama_cpp.tokenize import TokenizeBody
from modelyard.api.ollama import schema as ollama_schema
from modelyard.api.openai import schema as openai_schema
from modelyard.api.openai.embeddings import EmbeddingsBody
from modelyard.api.openai.responses import schema as responses_schema
from modelyard.api.openai.responses.history import conversation_of
from modelyard.api.rerank.routes import RERANK_HARMLESS, RerankBody
from modelyard.api.serving.ignored_fields import ignored_fields
from modelyard.errors import InvalidRequest
from modelyard.yard.requests.requests import WaitOptions

TURN = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Dialect:
    """One request: the fields that clients can send, and those that Modelyard knows.

    ``refused`` maps the fields that are not supported to their values without an effect.
    """

    known: frozenset[str]
    body: type[BaseModel]
    refused: Mapping[str, tuple[Any, ...]]
    smallest: Mapping[str, Any]
    check: Callable[[Any], object]

    @property
    def decided(self) -> frozenset[str]:
        return frozenset(self.body.model_fields) | frozenset(self.refused)


def fields(*params: Any) -> frozenset[str]:
    """Return the keys of TypedDicts or of pydantic models."""
    return frozenset(
        name
        for each in params
        for name in (each.model_fields if hasattr(each, "model_fields") else get_type_hints(each))
    )


def arguments(*methods: Callable[..., Any]) -> frozenset[str]:
    """Return the parameters of a client's methods, without those that control the HTTP request."""
    return frozenset().union(*(inspect.signature(method).parameters for method in methods)) - {
        *("self", "request_options")
    }


# The fields that mistral.rs adds to OpenAI's. Source: its behaviour, "ChatCompletionRequest fields".
SAMPLING_OF_MISTRAL_RS = frozenset(
    {
        *("top_k", "min_p", "repetition_penalty", "ignore_eos", "grammar", "adapter", "truncate_sequence"),
        *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_sequence_breakers"),
    }
)
CHAT_OF_MISTRAL_RS = SAMPLING_OF_MISTRAL_RS | {
    *("enable_thinking", "chat_template_kwargs", "web_search_options", "session_id", "files", "max_tool_rounds"),
    *("agent_permission", "code_execution_permission", "enable_shell", "reasoning_effort"),
}


def responses(body: responses_schema.ResponsesRequest) -> object:
    conversation = conversation_of((), body.input)
    return body.checked(conversation, body.offered(conversation))


def ollama_chat(body: ollama_schema.ChatRequest) -> object:
    return body.to_request(body.chat())


def ollama_generate(body: ollama_schema.GenerateRequest) -> object:
    return body.to_request(body.to_prompt(can_chat=True))


DIALECTS = {
    "chat completions": Dialect(
        fields(openai.types.chat.completion_create_params.CompletionCreateParamsStreaming) | CHAT_OF_MISTRAL_RS,
        openai_schema.ChatCompletionRequest,
        openai_schema.CHAT_HARMLESS,
        {"messages": TURN},
        openai_schema.ChatCompletionRequest.checked,
    ),
    "completions": Dialect(
        fields(openai.types.completion_create_params.CompletionCreateParamsStreaming) | SAMPLING_OF_MISTRAL_RS,
        openai_schema.CompletionRequest,
        openai_schema.COMPLETION_HARMLESS,
        {"prompt": "Hello"},
        openai_schema.CompletionRequest.checked,
    ),
    "embeddings": Dialect(
        fields(openai.types.embedding_create_params.EmbeddingCreateParams),
        EmbeddingsBody,
        {},
        {"input": "Hello"},
        lambda body: body.request(WaitOptions()),
    ),
    "rerank": Dialect(
        arguments(cohere.ClientV2.rerank, cohere.Client.rerank),
        RerankBody,
        RERANK_HARMLESS,
        {"query": "Hello?", "documents": ["Hello."]},
        RerankBody.checked,
    ),
    "responses": Dialect(
        fields(openai.types.responses.response_create_params.ResponseCreateParamsStreaming),
        responses_schema.ResponsesRequest,
        responses_schema.RESPONSES_HARMLESS,
        {"input": "Hello"},
        responses,
    ),
    "messages": Dialect(
        fields(
            anthropic.types.message_create_params.MessageCreateParamsStreaming,
            anthropic.types.beta.message_create_params.MessageCreateParamsStreaming,
        ),
        anthropic_schema.MessagesRequest,
        anthropic_schema.HARMLESS,
        {"messages": TURN, "max_tokens": 1},
        anthropic_schema.MessagesRequest.checked,
    ),
    "count_tokens": Dialect(
        fields(anthropic.types.message_count_tokens_params.MessageCountTokensParams),
        anthropic_schema.CountRequest,
        anthropic_schema.HARMLESS,
        {"messages": TURN},
        anthropic_schema.CountRequest.checked,
    ),
    "Ollama's chat": Dialect(
        fields(ollama_types.ChatRequest),
        ollama_schema.ChatRequest,
        ollama_schema.HARMLESS,
        {"messages": TURN},
        ollama_chat,
    ),
    "Ollama's generate": Dialect(
        fields(ollama_types.GenerateRequest),
        ollama_schema.GenerateRequest,
        ollama_schema.HARMLESS,
        {"prompt": "Hello"},
        ollama_generate,
    ),
    "Ollama's embed": Dialect(
        fields(ollama_types.EmbedRequest), ollama_schema.EmbedRequest, {}, {"input": "Hello"}, lambda _: None
    ),
    "Ollama's embeddings": Dialect(
        fields(ollama_types.EmbeddingsRequest), ollama_schema.EmbeddingsRequest, {}, {}, lambda _: None
    ),
}

ENTRIES = [(name, field) for name, dialect in DIALECTS.items() for field in sorted(dialect.refused)]


@pytest.mark.parametrize("name", list(DIALECTS))
def test_every_field_that_clients_know_is_decided(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.known - dialect.decided == frozenset(), "decide them: honour them, or refuse them by name"


@pytest.mark.parametrize(("name", "field"), ENTRIES)
def test_a_field_that_is_not_honoured_is_refused_by_name_unless_it_asks_for_nothing(name: str, field: str) -> None:
    dialect = DIALECTS[name]
    with pytest.raises(InvalidRequest, match=f"'{field}' is not supported") as refused:
        dialect.check(dialect.body.model_validate({**dialect.smallest, field: "something"}))
    assert (refused.value.param, refused.value.status) == (field, 400)
    for harmless in (None, *dialect.refused[field]):
        dialect.check(dialect.body.model_validate({**dialect.smallest, field: harmless}))


@pytest.mark.parametrize("name", list(DIALECTS))
def test_no_field_is_both_honoured_and_refused(name: str) -> None:
    dialect = DIALECTS[name]
    assert not frozenset(dialect.body.model_fields) & frozenset(dialect.refused)


@pytest.mark.parametrize(
    ("params", "part"),
    [
        (ChatCompletionStreamOptionsParam, openai_schema.StreamOptions),
        (Reasoning, responses_schema.Reasoning),
        (ResponseTextConfigParam, responses_schema.TextConfig),
        (anthropic.types.OutputConfigParam, anthropic_schema.OutputConfig),
        (anthropic.types.ThinkingConfigEnabledParam, anthropic_schema.Thinking),
    ],
)
def test_parts_of_fields_are_decided_too(params: Any, part: type[BaseModel]) -> None:
    assert fields(params) - frozenset(part.model_fields) == frozenset()


def test_ollamas_options_are_decided_too() -> None:
    decided = (
        frozenset(ollama_schema.Options.model_fields)
        | ollama_schema.LOADING_OPTIONS
        | ollama_schema.UNHEEDED_OPTIONS
        | frozenset(ollama_schema.OPTIONS_HARMLESS)
    )
    assert fields(ollama.Options) - decided == frozenset()


@pytest.mark.parametrize("option", sorted(ollama_schema.OPTIONS_HARMLESS))
def test_an_option_of_sampling_that_is_not_honoured_is_refused(option: str) -> None:
    body = {"messages": TURN, "options": {option: 0.5}}
    with pytest.raises(InvalidRequest, match=f"'{option}' is not supported"):
        ollama_chat(ollama_schema.ChatRequest.model_validate(body))


def test_what_forms_the_prompt_of_tokens_is_decided_too() -> None:
    """The fields of /tokenize are those of vLLM and llama.cpp."""
    llama_cpp = {"content", "add_special", "parse_special", "with_pieces"}
    vllm = {"model", "prompt", "messages", "tools", "add_special_tokens", "return_token_strs", "chat_template_kwargs"}
    assert llama_cpp | vllm <= set(TokenizeBody.model_fields)


def test_sampling_reaches_the_model_as_it_was_asked_for() -> None:
    asked = {"dry_multiplier": 0.8, "dry_base": 2.0, "dry_allowed_length": 3, "dry_sequence_breakers": ["\n"]}
    body = openai_schema.ChatCompletionRequest.model_validate({"messages": TURN, **asked})
    sampling = body.checked().sampling
    assert (sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length) == (0.8, 2.0, 3)
    assert sampling.dry_sequence_breakers == ("\n",)
    options = {"repeat_last_n": 64, "repeat_penalty": 1.1}
    request = ollama_schema.ChatRequest.model_validate({"messages": TURN, "options": options})
    assert request.to_request(request.chat()).sampling.penalty_window == 64


def test_options_of_a_stream_need_a_stream() -> None:
    asked = {"messages": TURN, "stream_options": {"include_usage": True}}
    with pytest.raises(InvalidRequest, match="'stream_options' is only allowed with 'stream'"):
        openai_schema.ChatCompletionRequest.model_validate(asked).checked()
    for stream, named in ((True, []), (False, ["stream_options"])):
        body = openai_schema.ChatCompletionRequest.model_validate({**asked, "stream": stream})
        body.checked()
        assert ignored_fields(body) == named


def test_limits_and_seeds_of_other_servers_mean_what_they_mean_there() -> None:
    def request(**fields: Any) -> Any:
        return openai_schema.ChatCompletionRequest.model_validate({"messages": TURN, **fields}).checked()

    assert request(max_tokens=-1).max_tokens is request(seed=-1).sampling.seed is None
    assert (request(max_tokens=0).max_tokens, request(n_predict=3).max_tokens) == (0, 3)
    assert request(max_completion_tokens=5, max_tokens=7, n_predict=9).max_tokens == 5
    assert request(repeat_penalty=1.2, repeat_last_n=7).sampling.repetition_penalty == 1.2
    with pytest.raises(InvalidRequest, match="names of one parameter"):
        request(repeat_penalty=1.2, repetition_penalty=1.3)
    with pytest.raises(InvalidRequest, match="'min_tokens' is 9"):
        request(min_tokens=9, max_tokens=8)
    bias = request(logit_bias=[[5, 1.5], [" word", False]]).sampling
    assert (bias.logit_bias, bias.text_bias) == ({5: 1.5}, {" word": -math.inf})
    assert request(samplers="kpt").sampling.samplers == ("top_k", "top_p", "temperature")
    assert request(samplers=["temp", "nucleus"]).sampling.samplers == ("temperature", "top_p")
    for names in ("q", ["heat"], [None], [["temp"]]):
        with pytest.raises(ValidationError, match="is none of the samplers"):
            request(samplers=names)


def test_options_of_generation_are_named_where_vectors_are_computed() -> None:
    body = {"input": "Hi", "options": {"temperature": 0.5, "num_gpu": 1, "seed": None}, "shape": 3}
    assert ignored_fields(ollama_schema.EmbedRequest.model_validate(body)) == ["shape", "options.temperature"]


def test_an_image_in_the_shape_of_chat_completions_is_one_of_responses_too() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    items = [{"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, image]}]
    body = responses_schema.ResponsesRequest.model_validate({"input": items})
    (message,) = conversation_of((), body.input).messages
    (text, reference) = message["content"]
    assert (text, reference.url, reference.detail) == ("What is it?", "data:image/png;base64,AAAA", "low")
    assert ignored_fields(body) == []
