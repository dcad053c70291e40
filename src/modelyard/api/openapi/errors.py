"""All errors that a client can receive, by status, in the shape of each dialect."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson

from modelyard.api.errors.rendering import InternalError, NotServed, shape_of
from modelyard.api.openapi.answers_anthropic import AnthropicErrorAnswer
from modelyard.api.openapi.answers_ollama import OllamaErrorAnswer
from modelyard.api.openapi.answers_openai import ErrorAnswer
from modelyard.errors import (
    ActivityNotFound,
    ApprovalNotFound,
    Closed,
    ConcurrencyLimited,
    ConfigError,
    ContextLengthExceeded,
    ConversationNotFound,
    EngineError,
    GrammarUntried,
    HeadTooLarge,
    HostNotAllowed,
    InsufficientMemory,
    InvalidApiKey,
    InvalidRequest,
    MediaUndecoded,
    ModelBusy,
    ModelFileChanged,
    ModelLoadFailed,
    ModelLoading,
    ModelNotFound,
    ModelRequired,
    ModelUnloaded,
    ModelyardError,
    NodeNotFound,
    NoFreeSlot,
    NotWithRemote,
    OriginNotAllowed,
    OutOfMemory,
    PermissionDenied,
    PromptUnread,
    QueueFull,
    RateLimited,
    RemoteFailed,
    RemoteLoop,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    RequestTimeout,
    RequestTooLarge,
    ResponseNotFound,
    ServerOverloaded,
    ShuttingDown,
    StoreUnavailable,
    TooManyConnections,
    UnsupportedOperation,
    UriTooLong,
)

# One example of each error.
EXAMPLES: tuple[ModelyardError, ...] = (
    InvalidRequest("'max_tokens': Input should be greater than or equal to 1", "max_tokens"),
    ContextLengthExceeded(2048, 2301),
    UnsupportedOperation("The model 'smollm2' generates text: it makes no embeddings.", "model"),
    NodeNotFound("n9", ["n1", "n2"]),
    NotWithRemote("big", "unloaded"),
    RemoteRefused("big", 400, "The prompt has 9,000 tokens, and the context has 8,192."),
    ModelRequired(("smollm2", "gemma3")),
    ConfigError("models.toml", ("models[0]: 'model_id' is missing.",)),
    InvalidApiKey(),
    PermissionDenied("This API key may not do that: it needs the scope 'admin', and has: inference, read."),
    HostNotAllowed("example.com"),
    OriginNotAllowed("'https://example.com'"),
    ModelNotFound("smollm", ("smollm2", "gemma3")),
    ResponseNotFound("resp_0"),
    ConversationNotFound("conv_0"),
    ActivityNotFound("18a2b3c4d5e6f708-9"),
    ApprovalNotFound("apr_0"),
    NotServed("GET /v1/nothing: Not Found", 404),
    NotServed("GET /v1/messages: Method Not Allowed", 405),
    RequestTimeout("The head of the request did not arrive within 20 s."),
    RequestTooLarge(50 * 2**20),
    UriTooLong(16 * 2**10),
    HeadTooLarge("The head of the request has more than 100 header lines."),
    QueueFull("smollm2", 256),
    NoFreeSlot("smollm2", 4),
    RateLimited("requests", 60, 12),
    ConcurrencyLimited(4),
    InternalError("4f1c"),
    EngineError("smollm2", "llama_decode failed with -3"),
    StoreUnavailable("database is locked"),
    PromptUnread("smollm2", "others had all processes for 10 s"),
    GrammarUntried("others had all processes for 10 s"),
    MediaUndecoded("image", "others had all processes for 20 s"),
    RemoteFailed("big", "its answer ended before it was complete"),
    RemoteTimeout("big", 300.0),
    RemoteLoop("big", 2),
    RemoteUnavailable("big", "connection refused", 2),
    ModelLoading("smollm2", 3),
    ModelBusy("smollm2", 30.0),
    ModelUnloaded("smollm2"),
    ModelFileChanged("smollm2", "SmolLM2.Q4_1.gguf"),
    ModelLoadFailed("smollm2", "The file is damaged.", 5),
    ServerOverloaded(256 << 20),
    TooManyConnections("All 4096 connections of the server are in use."),
    ShuttingDown(),
    Closed(),
    OutOfMemory(),
    InsufficientMemory("smollm2", 900_000_000, 500_000_000),
)

REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "The request is invalid or not supported.",
        401: "The API key is missing or wrong.",
        403: "The API key, the Host header or the Origin of the request is not allowed.",
        404: "The path, the model or the response does not exist.",
        408: "The request did not arrive in time.",
        413: "The body is too large.",
        414: "The URL is too long.",
        429: "There are too many requests for the model or from the API key.",
        431: "The head of the request is too large.",
        500: "The engine, or the server, failed.",
        502: "The server that has the model failed.",
        503: "The server or the model cannot serve at the moment.",
        504: "The server that has the model sent nothing in time.",
        507: "The model does not fit the memory budget.",
        508: "The request came back to the server, which passes it on: servers name each other for the model.",
    }
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect of errors: its name, an example of a path, and the schema of its errors."""

    name: str
    path: str
    error: type


OPENAI: Final = Dialect("OpenAI", "/v1/chat/completions", ErrorAnswer)
ANTHROPIC: Final = Dialect("Anthropic", "/v1/messages", AnthropicErrorAnswer)
OLLAMA: Final = Dialect("Ollama", "/api/chat", OllamaErrorAnswer)


def dialect_of(path: str) -> Dialect:
    """Return the dialect of errors on ``path``."""
    shape = shape_of(path)
    return next(dialect for dialect in (ANTHROPIC, OLLAMA, OPENAI) if shape_of(dialect.path) is shape)


def error_responses(references: Mapping[type, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and description of the error response of each dialect and status."""
    by_status: defaultdict[int, list[ModelyardError]] = defaultdict(list)
    for error in EXAMPLES:
        by_status[error.status].append(error)
    for dialect in (OPENAI, ANTHROPIC, OLLAMA):
        for status, reason in REASONS.items():
            examples = {
                error.code: {"value": orjson.loads(shape_of(dialect.path)(error))} for error in by_status[status]
            }
            content = {"application/json": {"schema": references[dialect.error], "examples": examples}}
            headers = {"x-request-id": {"$ref": "#/components/headers/x-request-id"}}
            if status in (429, 503):
                headers["retry-after"] = {"$ref": "#/components/headers/retry-after"}
            yield (
                response_name(dialect, status),
                {"description": reason, "headers": headers, "content": content},
            )


def response_name(dialect: Dialect, status: int) -> str:
    """Return the name of the error response of a dialect and status."""
    return f"{dialect.name}{status}"


def codes() -> Iterator[tuple[int, str, str, str]]:
    """Yield status, code, type and meaning of each error, by status."""
    for error in sorted(EXAMPLES, key=lambda each: each.status):
        meaning = inspect.cleandoc(type(error).__doc__ or "").partition("\n")[0]
        yield error.status, error.code, error.type, meaning
