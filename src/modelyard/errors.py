"""All errors of Modelyard, with code, HTTP status and advice.

    ModelyardError
    ├── ConfigError                 400 config_error: the TOML file or the command line is invalid
    ├── UnusableModel               files of a model are missing, damaged or not supported
    │   ├── ConversionFailed        llama.cpp cannot convert the files
    │   └── RepositoryUnavailable   a repository of the hub is missing, gated, unreachable, or not cached while offline
    ├── PortUnavailable             the address cannot be listened on
    ├── InvalidRequest              400 invalid_request
    │   ├── ContextLengthExceeded   400 context_length_exceeded
    │   │   ├── ConversationTooLong a conversation of many megabytes
    │   │   └── ContextNotPermitted more tokens than the API key may use
    │   ├── GrammarBroken           400 invalid_request: an answer cannot follow its grammar any further
    │   ├── InputTooLong            400 context_length_exceeded: a text to be embedded or ranked
    │   └── UnsupportedOperation    400 unsupported_operation
    │       ├── TakesNoImages       an image for a model without vision
    │       └── TakesNoSound        a clip of sound for a model without audio input
    ├── ModelRequired               400 model_required
    ├── InvalidApiKey               401 invalid_api_key
    ├── PermissionDenied            403 permission_denied
    │   ├── HostNotAllowed          403 host_not_allowed
    │   ├── OriginNotAllowed        403 origin_not_allowed
    │   └── ModelNotPermitted       403 permission_denied
    ├── ModelNotFound               404 model_not_found
    ├── ResponseNotFound            404 response_not_found
    ├── RequestTimeout              408 request_timeout
    ├── RequestTooLarge             413 request_too_large
    ├── ServerOverloaded            503 server_overloaded: the memory for request bodies is used up
    ├── UriTooLong                  414 uri_too_long
    ├── HeadTooLarge                431 request_head_too_large
    ├── OutOfMemory                 507 out_of_memory: an allocation for the request failed
    ├── QueueFull                   429 queue_full
    ├── RateLimited                 429 rate_limit_exceeded
    │   └── TokensReserved          429 rate_limit_exceeded: running requests have reserved the tokens
    ├── ConcurrencyLimited          429 concurrency_limit_exceeded
    ├── ModelLoading                503 model_loading
    ├── ModelBusy                   503 model_busy
    ├── ModelUnloaded               503 model_unloaded
    ├── ModelFileChanged            503 model_file_changed: a file of the model was overwritten while it was served
    ├── ModelLoadFailed             503 model_load_failed
    ├── TooManyConnections          503 too_many_connections
    ├── ShuttingDown                503 shutting_down
    ├── InsufficientMemory          507 insufficient_memory
    ├── Closed                      503 closed: a model of the Python API was used after its close
    ├── ForkedProcess               500 forked_process: a model of the Python API was used in a forked child
    ├── GrammarUntried              503 grammar_untried: no process was available to test a grammar
    ├── MediaUndecoded              503 media_undecoded: no process was available to decode an image or a clip of sound
    └── EngineError                 500 engine_error
        └── HarmfulRequest          a request that ended its engine twice

Code and status are on the class, values on the instance, and the text is made by ``__str__``, so that an error can be
pickled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

# OpenAI's client does not retry at all if Retry-After is longer than this.
MAX_RETRY_AFTER_S = 120

MAX_MESSAGE_CHARS = 2000
"""Characters of an error message in a response. Messages may quote input, which may be megabytes."""


class ModelyardError(Exception):
    """Base of all errors that Modelyard raises on purpose.

    Attributes:
        code: stable name of the error, ``error.code`` in a response.
        status: HTTP status of the response.
        type: ``error.type`` in a response, in OpenAI's vocabulary.
        param: the request field at fault; None: no single field is.
        retry_after_s: whole seconds after which to retry; None: a retry does not help, or the time is unknown.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    param: str | None = None
    retry_after_s: int | None = None

    @property
    def wire_message(self) -> str:
        """The message, cut to ``MAX_MESSAGE_CHARS``."""
        message = str(self)
        return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by attributes, because constructors have different parameters."""
        return restore_error, (type(self), self.args, self.__dict__)


def restore_error(kind: type[ModelyardError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> ModelyardError:
    """Restore a pickled error."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class _Message(ModelyardError):
    """An error whose message is an argument."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConfigError(ModelyardError):
    """The configuration is invalid. The error lists all problems, not only the first."""

    code = "config_error"
    status = 400
    type = "invalid_request_error"

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.source}: {self.problems[0]}"
        return "\n".join([f"{self.source}: {len(self.problems)} problems", *(f"  - {p}" for p in self.problems)])


class UnusableModel(_Message):
    """Files of a model are missing, damaged, ambiguous or not supported."""

    code = "unusable_model"


class ConversionFailed(UnusableModel):
    """llama.cpp's converter or quantiser does not support the files; the machine is not at fault."""

    code = "conversion_failed"


class RepositoryUnavailable(UnusableModel):
    """A repository of the hub is not available."""

    code = "repository_unavailable"

    def __init__(self, why: Literal["missing", "gated", "unreachable", "offline"], message: str) -> None:
        super().__init__(message)
        self.args = (why, message)
        self.why = why


class PortUnavailable(ModelyardError):
    """The address cannot be listened on."""

    code = "port_unavailable"

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host, self.port, self.reason = host, port, reason

    def __str__(self) -> str:
        return f"Cannot listen on {self.host}:{self.port}: {self.reason}. Choose another address with --host or --port."


class InvalidRequest(ModelyardError):
    """A field of the request, or the request as a whole, cannot be honoured."""

    code = "invalid_request"
    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message, self.param = message, param

    def __str__(self) -> str:
        return self.message


class UnsupportedOperation(InvalidRequest):
    """The model exists but cannot do what was asked of it."""

    code = "unsupported_operation"


class TakesNoImages(UnsupportedOperation):
    """An image was sent to a model that takes no images.

    Args:
        model: id of the model.
        param: the request field of the image.
        able: ids of known models that take images.
    """

    def __init__(self, model: str, param: str, able: Sequence[str] = ()) -> None:
        super().__init__(_takes_none(model, "images", able), param)
        self.args = (model, param, able)


class TakesNoSound(UnsupportedOperation):
    """A clip of sound was sent to a model that takes no sound.

    Args:
        model: id of the model.
        param: the request field of the clip.
        able: ids of known models that take sound.
    """

    def __init__(self, model: str, param: str, able: Sequence[str] = ()) -> None:
        super().__init__(_takes_none(model, "sound", able), param)
        self.args = (model, param, able)


def _takes_none(model: str, what: str, able: Sequence[str]) -> str:
    advice = (
        f"Models that take {what}: {', '.join(able)}" if able else f"Send text alone, or name one that takes {what}"
    )
    return f"The model '{model}' takes no {what}: it is served without a projector (mmproj) that does. {advice}."


class ContextLengthExceeded(InvalidRequest):
    """The prompt alone does not fit the model's context.

    Args:
        context_length: length of the context in tokens.
        prompt_tokens: tokens of the prompt; None: the text was refused before it was tokenised.
        param: the request field of the prompt.
    """

    code = "context_length_exceeded"

    def __init__(self, context_length: int, prompt_tokens: int | None, param: str = "messages") -> None:
        length = f"{prompt_tokens} tokens" if prompt_tokens is not None else "far too much text"
        super().__init__(
            f"The prompt has {length}, but the model's context is {context_length} tokens, of which at least one "
            "must be left for the answer. Shorten the prompt, or serve the model with a larger context.",
            param,
        )
        self.args = (context_length, prompt_tokens, param)


class ConversationTooLong(ContextLengthExceeded):
    """A conversation has more bytes than a chat template may render, which is more than fits any context."""

    def __init__(self, size: int, limit: int, param: str = "messages") -> None:
        InvalidRequest.__init__(
            self,
            f"The conversation has {size:,} bytes, and a chat template renders {limit:,} at most. Shorten it.",
            param,
        )
        self.args = (size, limit, param)


class ContextNotPermitted(ContextLengthExceeded):
    """A prompt and its answer have more tokens than the API key may use for both.

    Args:
        permitted: limit of the key.
        prompt_tokens: tokens of the prompt.
        max_tokens: limit of the answer in the request; None: it has none.
        param: the request field of the prompt.
    """

    def __init__(
        self, permitted: int, prompt_tokens: int, max_tokens: int | None = None, param: str = "messages"
    ) -> None:
        if max_tokens is None:
            requested, remedy = "", "Shorten the prompt."
        else:
            requested = f", and {max_tokens} are requested for the answer"
            remedy = "Shorten the prompt, or lower max_tokens."
        InvalidRequest.__init__(
            self,
            f"The prompt has {prompt_tokens} tokens{requested}. This API key may use {permitted} for a prompt and its "
            f"answer together (max_context). {remedy}",
            param,
        )
        self.args = (permitted, prompt_tokens, max_tokens, param)


class InputTooLong(InvalidRequest):
    """A text for an embedding or a ranking has more tokens than the model takes.

    Args:
        limit: limit of the model in tokens.
        tokens: tokens of the text; None: the text was refused before it was tokenised.
        param: the request field of the text.
        remedy: an alternative to a shorter text.
    """

    code = "context_length_exceeded"

    def __init__(
        self, limit: int, tokens: int | None, param: str, remedy: str = "split it into several inputs"
    ) -> None:
        length = f"{tokens} tokens" if tokens is not None else "far too much text"
        super().__init__(
            f"'{param}' has {length}, but the model takes {limit} tokens at most. Shorten it, or {remedy}.", param
        )
        self.args = (limit, tokens, param, remedy)


class ModelRequired(ModelyardError):
    """The request names no model, and no default model is configured."""

    code = "model_required"
    status = 400
    type = "invalid_request_error"
    param = "model"

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__(known)
        self.known = tuple(known)

    def __str__(self) -> str:
        return (
            f"The request names no model and no default is configured. Set 'model' to one of: {', '.join(self.known)}."
        )


class InvalidApiKey(ModelyardError):
    """The API key of the request is missing or not configured."""

    code = "invalid_api_key"
    status = 401
    type = "authentication_error"

    def __str__(self) -> str:
        return "Missing or wrong API key. Send a configured key as 'Authorization: Bearer <key>'."


class PermissionDenied(_Message):
    """The API key of the request does not permit the request."""

    code = "permission_denied"
    status = 403
    type = "permission_error"


class ModelNotPermitted(PermissionDenied):
    """The API key of the request does not permit the model."""

    param = "model"

    def __init__(self, model: str, permitted: Sequence[str]) -> None:
        super().__init__(f"This API key may not use the model '{model}'. It may use: {', '.join(permitted)}.")
        self.args = (model, permitted)
        self.model, self.permitted = model, tuple(permitted)


class HostNotAllowed(PermissionDenied):
    """The Host header is not a name of the server: a web page may have made its own name resolve to it."""

    code = "host_not_allowed"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This server does not answer to the name '{host}', because any web page could make it resolve to this "
            "machine. Use the IP address of the server or localhost, or list the name in allowed_hosts under [server] "
            "(modelyard serve: --allowed-host)."
        )
        self.args = (host,)


class OriginNotAllowed(PermissionDenied):
    """The Origin of the request, a web page, may not use the server."""

    code = "origin_not_allowed"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"The request was sent by a web page of {origin}, which may not use this server. To allow it, "
            "list its origin in cors_origins under [server]."
        )
        self.args = (origin,)


class ModelNotFound(ModelyardError):
    """No model has that id or alias."""

    code = "model_not_found"
    status = 404
    type = "invalid_request_error"
    param = "model"

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(model, known)
        self.model, self.known = model, tuple(known)

    def __str__(self) -> str:
        matches = get_close_matches(self.model, self.known, n=1)
        hint = f" Did you mean '{matches[0]}'?" if matches else ""
        known = f" Known: {', '.join(self.known)}." if self.known else ""
        return f"The model '{self.model}' does not exist.{known}{hint}"


class ResponseNotFound(ModelyardError):
    """No response with that id is stored."""

    code = "response_not_found"
    status = 404
    type = "invalid_request_error"
    param = "response_id"

    def __init__(self, response: str) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"The response '{self.response}' is not stored: it was deleted, or evicted for later responses."


class RequestTimeout(_Message):
    """The request did not arrive in time; its connection is closed."""

    code = "request_timeout"
    status = 408
    type = "invalid_request_error"


class UriTooLong(ModelyardError):
    """The URL of the request is longer than the server accepts."""

    code = "uri_too_long"
    status = 414
    type = "invalid_request_error"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"The URL of the request is longer than {self.limit_bytes} bytes. Send long values in the body."


class HeadTooLarge(_Message):
    """The head of the request has more bytes, or more lines, than the server accepts."""

    code = "request_head_too_large"
    status = 431
    type = "invalid_request_error"


class RequestTooLarge(ModelyardError):
    """The body is larger than the server accepts."""

    code = "request_too_large"
    status = 413
    type = "invalid_request_error"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"The request body is larger than {self.limit_bytes} bytes."


class ServerOverloaded(ModelyardError):
    """Other requests use all the memory for request bodies."""

    code = "server_overloaded"
    status = 503
    retry_after_s = 5

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"Other requests use all of the {self.limit_bytes >> 20} MiB that the server has for request bodies. "
            "Try again soon."
        )


class OutOfMemory(ModelyardError):
    """An allocation for the request failed."""

    code = "out_of_memory"
    status = 507

    def __str__(self) -> str:
        return "The server had no memory to read or answer this request. Send less at once, or try again later."


class QueueFull(ModelyardError):
    """The queue of the model is full."""

    code = "queue_full"
    status = 429
    type = "rate_limit_error"
    retry_after_s = 1

    def __init__(self, model: str, waiting: int, *, of_key: bool = False) -> None:
        super().__init__(model, waiting)
        self.model, self.waiting, self.of_key = model, waiting, of_key

    def __str__(self) -> str:
        if self.of_key:
            return (
                f"{self.waiting} requests of this API key for '{self.model}' are running or waiting; the other places "
                "are left for other keys. Try again soon."
            )
        return f"{self.waiting} requests for '{self.model}' are running or waiting, which is its limit. Try again soon."


class RateLimited(ModelyardError):
    """The API key has used its requests or its tokens of a minute."""

    code = "rate_limit_exceeded"
    status = 429
    type = "rate_limit_error"

    def __init__(self, what: Literal["requests", "tokens"], per_minute: int, retry_after_s: int) -> None:
        super().__init__(what, per_minute, retry_after_s)
        self.what, self.per_minute, self.retry_after_s = what, per_minute, retry_after_s

    def __str__(self) -> str:
        return f"This API key has used its {self.per_minute} {self.what} a minute. Try again in {self.retry_after_s} s."


class TokensReserved(RateLimited):
    """Running requests have reserved all tokens that are left to the API key."""

    def __init__(self, per_minute: int) -> None:
        super().__init__("tokens", per_minute, 1)
        self.args = (per_minute,)

    def __str__(self) -> str:
        return (
            f"Running requests have reserved what is left to this API key of its {self.per_minute} tokens a minute. "
            "Each reserves its prompt and its max_tokens, or else the context of its model. Try again when one has "
            "ended, or set max_tokens."
        )


class ConcurrencyLimited(ModelyardError):
    """The API key has as many running answers as it may have at the same time."""

    code = "concurrency_limit_exceeded"
    status = 429
    type = "rate_limit_error"
    retry_after_s = 1

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return (
            f"{self.most} answers are running for this API key, which is its limit (max_concurrent); each choice of a "
            "request counts. Try again when one has ended."
        )


class ModelLoading(ModelyardError):
    """The model is not loaded, and the caller does not wait, or has waited as long as it allows."""

    code = "model_loading"
    status = 503

    def __init__(self, model: str, retry_after_s: int, waited_s: float = 0.0) -> None:
        super().__init__(model, retry_after_s, waited_s)
        self.model, self.retry_after_s, self.waited_s = model, retry_after_s, waited_s

    def __str__(self) -> str:
        waited = f" after {self.waited_s:.0f} s of waiting" if self.waited_s else ""
        return f"The model '{self.model}' is not loaded{waited}. Try again in {self.retry_after_s} s."


class ModelBusy(ModelyardError):
    """Running requests did not end in time for an unload. The model stays loaded."""

    code = "model_busy"
    status = 503

    def __init__(self, model: str, waited_s: float) -> None:
        super().__init__(model, waited_s)
        self.model, self.waited_s = model, waited_s

    def __str__(self) -> str:
        return (
            f"The model '{self.model}' still serves requests after {self.waited_s:.0f} s; it was not unloaded. "
            "Unload it with mode 'suspend' or 'force' to wait no longer."
        )


class ModelUnloaded(ModelyardError):
    """The model was unloaded by force while it computed the answer."""

    code = "model_unloaded"
    status = 503

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return f"The model '{self.model}' was unloaded by force. A new request loads it again."


class InsufficientMemory(ModelyardError):
    """The model does not fit the memory budget, even if all others are unloaded."""

    code = "insufficient_memory"
    status = 507

    def __init__(self, model: str, needed_bytes: int, budget_bytes: int, pinned: Sequence[str] = ()) -> None:
        super().__init__(model, needed_bytes, budget_bytes, pinned)
        self.model, self.needed_bytes, self.budget_bytes = model, needed_bytes, budget_bytes
        self.pinned = tuple(pinned)

    def __str__(self) -> str:
        beside = f" beside the pinned {', '.join(self.pinned)}" if self.pinned else ""
        return (
            f"The model '{self.model}' needs {self.needed_bytes / 1e6:,.0f} MB{beside}, and the memory budget is "
            f"{self.budget_bytes / 1e6:,.0f} MB. Give it a shorter context (max_seq_len) or fewer sequences "
            "(max_seqs), or raise budget under [memory]."
        )


class ModelLoadFailed(ModelyardError):
    """The model could not be loaded. The next attempt is possible after ``retry_after_s``."""

    code = "model_load_failed"
    status = 503

    def __init__(self, model: str, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(model, reason, retry_after_s)
        self.model, self.reason, self.retry_after_s = model, reason, retry_after_s

    def __str__(self) -> str:
        return f"The model '{self.model}' could not be loaded: {self.reason}"


class ModelFileChanged(ModelyardError):
    """A file of the model changed during the request, which cannot continue with other weights."""

    code = "model_file_changed"
    status = 503

    def __init__(self, model: str, file: str) -> None:
        super().__init__(model, file)
        self.model, self.file = model, file

    def __str__(self) -> str:
        return (
            f"The file {self.file} of the model '{self.model}' changed before this answer was complete. Try again: a "
            "new request uses the new file. To change a file without this error, replace it (mv) instead of "
            "overwriting it (cp)."
        )


class TooManyConnections(_Message):
    """All connections of the server, or of the client's address, are in use."""

    code = "too_many_connections"
    status = 503
    retry_after_s = 1


class ShuttingDown(ModelyardError):
    """The server is shutting down."""

    code = "shutting_down"
    status = 503

    def __str__(self) -> str:
        return "The server is shutting down."


class Closed(ModelyardError):
    """The model was used after its close."""

    code = "closed"
    status = 503

    def __str__(self) -> str:
        return "The model was closed, and its memory is free. Build it again."


class ForkedProcess(ModelyardError):
    """A model was used in a forked child, where its threads do not exist."""

    code = "forked_process"

    def __init__(self, parent: int) -> None:
        super().__init__(parent)
        self.parent = parent

    def __str__(self) -> str:
        return (
            f"The model was built in process {self.parent}, and a fork copies no threads: it cannot answer here. "
            "Build it in this process, start processes with the method 'spawn', or serve it over HTTP."
        )


class GrammarUntried(ModelyardError):
    """No process was available to test a grammar before its use."""

    code = "grammar_untried"
    status = 503
    retry_after_s = 10

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The grammar could not be tested: {self.reason}. Try again."


class MediaUndecoded(ModelyardError):
    """No process was available to decode an image or a clip of sound.

    Args:
        name: "image" or "audio".
        reason: why no process was available.
    """

    code = "media_undecoded"
    status = 503
    retry_after_s = 10

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"The {self.name} could not be decoded: {self.reason}. Try again."


class GrammarBroken(InvalidRequest):
    """The answer cannot follow its grammar any further. The test of the grammar did not detect this."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The answer cannot follow its grammar any further: {reason}. Simplify the request's schema or grammar."
        )
        self.args = (reason,)


class EngineError(ModelyardError):
    """The engine of the model failed while it computed the answer."""

    code = "engine_error"

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return f"The engine of '{self.model}' failed: {self.reason}. Other models are not affected; try again."


class HarmfulRequest(EngineError):
    """The request, or an equal one, has ended its engine twice.

    Args:
        reason: why the engine ended.
        refused_s: for how many seconds equal requests are refused.
    """

    def __init__(self, model: str, reason: str, refused_s: float) -> None:
        super().__init__(model, reason)
        self.args = (model, reason, refused_s)
        self.refused_s = refused_s

    def __str__(self) -> str:
        minutes = max(1, math.ceil(self.refused_s / 60))
        span = "minute" if minutes == 1 else f"{minutes} minutes"
        return (
            f"This request has ended the engine of '{self.model}' twice: {self.reason}. It is refused for the next "
            f"{span}; other requests are not affected. Change the request, or use another model."
        )
