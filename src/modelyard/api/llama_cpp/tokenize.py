"""POST /tokenize, /detokenize and /apply-template, compatible with llama.cpp's server and vLLM.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, and vLLM's
entrypoints/serve/tokenize/protocol.py.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.openai.conversation import (
    AddGenerationPrompt,
    ChatMessage,
    ContinueFinalMessage,
    chosen_continuation,
)
from modelyard.api.openai.schema import MAX_NAME_LENGTH, ChatCompletionRequest, refuse_unsupported
from modelyard.api.openai.tools import ToolDefinition, Tools, chosen_tools
from modelyard.api.services import Services
from modelyard.api.serving.bounded_items import Messages
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.wait_options import KeepAlive, wait_options_of
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, Text, Tokens
from modelyard.yard.requests.one_shot import Tokenization
from modelyard.yard.requests.requests import TokenizeRequest
from modelyard.yard.yard import Yard

# A text of the maximum length has no more tokens.
MAX_IDS: Final = 1 << 20

_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "chat_template": (),
    "mm_processor_kwargs": (),
    "truncate_prompt_tokens": (),
}


# The fields of a text that is tokenised, which a conversation does not have.
_TEXTS: Final = frozenset({"content", "prompt", "add_special", "add_special_tokens", "parse_special", "with_pieces"})


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())

    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    keep_alive: KeepAlive | None = None


class TokenizeBody(_Body):
    """The body of ``POST /tokenize``: a text, in llama.cpp's field or in vLLM's, or a conversation."""

    known_extras: ClassVar = frozenset(_HARMLESS)

    content: str | None = Field(
        default=None, description="A text. No special tokens are added, unless `add_special` is true."
    )
    prompt: str | None = Field(
        default=None, description="A text. Special tokens are added, unless `add_special` is false."
    )
    messages: Messages[ChatMessage] | None = Field(
        default=None, description="A conversation, rendered by the model's chat template."
    )
    tools: Tools[ToolDefinition] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: ContinueFinalMessage = None
    add_generation_prompt: AddGenerationPrompt = None
    add_special: bool | None = None
    add_special_tokens: bool | None = Field(default=None, description="vLLM's name for `add_special`.")
    parse_special: bool | None = None
    with_pieces: bool | None = Field(default=None, description="Whether each token is returned with its text.")
    return_token_strs: bool | None = Field(
        default=None, description="Whether the answer has `token_strs`, the texts of the tokens in order."
    )

    def checked(self) -> TokenizeRequest:
        """Return the request for the yard.

        Raises:
            InvalidRequest: there is not exactly one text or conversation, or a field is not supported.
        """
        refuse_unsupported(self, _HARMLESS)
        inputs = [name for name in ("content", "prompt", "messages") if getattr(self, name) is not None]
        if len(inputs) != 1:
            raise InvalidRequest(
                "Give one of 'content', 'prompt' and 'messages'"
                + (f", not both '{inputs[0]}' and '{inputs[1]}'." if inputs else "."),
                inputs[1] if inputs else "content",
            )
        if self.messages is not None:
            tools, _ = chosen_tools(self.tools or [], None)
            messages = tuple(message.for_template(f"messages[{index}]") for index, message in enumerate(self.messages))
            chat = Chat(
                messages,
                tools,
                options=self.chat_template_kwargs or {},
                continues=chosen_continuation(messages, self.continue_final_message, self.add_generation_prompt),
                opens_turn=self.add_generation_prompt is not False,
            )
            return TokenizeRequest(chat, self.model)
        add_special = self.add_special if self.add_special is not None else self.add_special_tokens
        return TokenizeRequest(
            Text(self.content if self.content is not None else self.prompt or ""),
            self.model,
            add_special=self.prompt is not None if add_special is None else add_special,
            parse_special=self.parse_special is not False,
        )


class DetokenizeBody(_Body):
    """The body of ``POST /detokenize``."""

    tokens: list[int] = Field(max_length=MAX_IDS, fail_fast=True, description="Token ids.")


def tokenized_body(tokenization: Tokenization, context_length: int | None, body: TokenizeBody) -> bytes:
    """Return the body of /tokenize: llama.cpp's ``tokens``, and vLLM's count, context length and ``token_strs``."""
    # Placeholders for images and sound have no id; llama.cpp also writes -1 (LLAMA_TOKEN_NULL).
    tokens: list[Any] = [max(token, -1) for token in tokenization.tokens]
    if body.with_pieces:
        tokens = [
            {"id": token, "piece": _piece(piece)} for token, piece in zip(tokens, tokenization.pieces, strict=True)
        ]
    answer = {"tokens": tokens, "count": len(tokens), "max_model_len": context_length, "model": tokenization.model}
    if body.return_token_strs:
        answer["token_strs"] = [piece.decode("utf-8", "replace") for piece in tokenization.pieces]
    return orjson.dumps(answer)


def _piece(piece: bytes) -> str | list[int]:
    """Return llama.cpp's ``piece``: text, or a list of bytes if they are not complete UTF-8."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


class TemplateBody(_Body):
    """The body of ``POST /apply-template``."""

    messages: Messages[ChatMessage] = Field(description="The conversation.")
    tools: Tools[ToolDefinition] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def to_request(self) -> TokenizeRequest:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        return TokenizeBody(
            model=self.model,
            messages=self.messages,
            tools=self.tools,
            chat_template_kwargs=self.chat_template_kwargs,
            **{name: value for name, value in (self.model_extra or {}).items() if name not in _TEXTS},
        ).checked()


router = APIRouter(route_class=JsonRoute)


@router.post("/tokenize", response_model=None)
@router.post("/v1/tokenize", response_model=None)
async def tokenize(body: TokenizeBody, http: HttpRequest) -> Response:
    """The tokens of a text, or of a conversation in the model's chat template."""
    request = replace(body.checked(), wait_options=wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(_tokenize, Services.of(http), request, body))


async def _tokenize(services: Services, request: TokenizeRequest, body: TokenizeBody) -> bytes:
    """Compute the body of the answer."""
    tokenization = await services.yard.tokenize(await services.media.resolved(request))
    return tokenized_body(tokenization, services.yard.model(tokenization.model).context_length, body)


@router.post("/detokenize", response_model=None)
@router.post("/v1/detokenize", response_model=None)
async def detokenize(body: DetokenizeBody, http: HttpRequest) -> Response:
    """The text of tokens, special tokens included."""
    request = TokenizeRequest(Tokens(tuple(body.tokens)), body.model)
    request = replace(request, wait_options=wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(_detokenize, Services.of(http).yard, request))


async def _detokenize(yard: Yard, request: TokenizeRequest) -> bytes:
    """Compute the body of the answer."""
    tokenization = await yard.tokenize(request)
    text = b"".join(tokenization.pieces).decode("utf-8", "replace")
    return orjson.dumps({"content": text, "prompt": text, "model": tokenization.model})


@router.post("/apply-template", response_model=None)
async def apply_template(body: TemplateBody, http: HttpRequest) -> Response:
    """A conversation as the text that the model reads, special tokens included."""
    request = replace(body.to_request(), wait_options=wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(_apply_template, Services.of(http), request))


async def _apply_template(services: Services, request: TokenizeRequest) -> bytes:
    """Compute the body of the answer."""
    tokenization = await services.yard.tokenize(await services.media.resolved(request))
    return orjson.dumps({"prompt": b"".join(tokenization.pieces).decode("utf-8", "replace")})


@router.post("/chat/completions/input_tokens", response_model=None)
@router.post("/v1/chat/completions/input_tokens", response_model=None)
async def count_chat_tokens(body: ChatCompletionRequest, http: HttpRequest) -> Response:
    """The number of tokens of the prompt of a chat completion."""
    request = await RequestBody.of(http.scope).converted(body.checked)
    assert isinstance(request.prompt, Chat)
    counted = TokenizeRequest(request.prompt, request.model, wait_options=wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(_count, Services.of(http), counted))


async def _count(services: Services, request: TokenizeRequest) -> bytes:
    """Compute the body of the answer."""
    tokenization = await services.yard.tokenize(await services.media.resolved(request))
    return orjson.dumps({"object": "response.input_tokens", "input_tokens": len(tokenization.tokens)})
