"""All errors of Modelyard, with code, HTTP status and advice.

    ModelyardError
    ├── ConfigError                 400 config_error: the TOML file or the command line is invalid
    │   └── UnusableModels          its files of models are missing, damaged or not supported
    ├── UnusableModel               files of a model are missing, damaged or not supported
    │   ├── ConversionFailed        llama.cpp cannot convert the files
    │   ├── OutOfDeviceMemory       a device cannot allocate what a model needs
    │   └── RepositoryUnavailable   a repository of the hub is missing, gated, unreachable, or not cached while offline
    ├── PortUnavailable             the address cannot be listened on
    ├── LlamaCppUnusable            the installed llama.cpp cannot be loaded
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
    ├── NodeNotFound                404 node_not_found: no node of a cluster has that name
    ├── ResponseNotFound            404 response_not_found
    ├── ConversationNotFound        404 conversation_not_found
    ├── ActivityNotFound            404 activity_not_found: no request is known under that id
    ├── ApprovalNotFound            404 approval_not_found: no call of a tool waits under that id
    ├── RequestTimeout              408 request_timeout
    ├── RequestTooLarge             413 request_too_large
    ├── ServerOverloaded            503 server_overloaded: the memory for request bodies is used up
    ├── StoreUnavailable            503 store_unavailable: the file of stored responses cannot be used
    ├── UriTooLong                  414 uri_too_long
    ├── HeadTooLarge                431 request_head_too_large
    ├── OutOfMemory                 507 out_of_memory: an allocation for the request failed
    ├── NoFreeSlot                  503 no_free_slot: of GET /slots alone
    ├── QueueFull                   429 queue_full
    ├── RateLimited                 429 rate_limit_exceeded
    │   └── TokensReserved          429 rate_limit_exceeded: running requests have reserved the tokens
    ├── ConcurrencyLimited          429 concurrency_limit_exceeded
    ├── ModelLoading                503 model_loading: not loaded, or about to be unloaded
    ├── ModelBusy                   503 model_busy: running requests did not end in time for an unload
    ├── ModelUnloaded               503 model_unloaded: by force, while the model computed the answer
    ├── ModelFileChanged            503 model_file_changed: a file of the model was overwritten while it was served
    ├── ModelLoadFailed             503 model_load_failed
    ├── TooManyConnections          503 too_many_connections: no place for another connection, observer or session
    ├── ShuttingDown                503 shutting_down
    ├── InsufficientMemory          507 insufficient_memory
    ├── Closed                      503 closed: a model of the Python API was used after its close
    ├── ForkedProcess               500 forked_process: a model of the Python API was used in a forked child
    ├── WrongEventLoop              500 wrong_event_loop: a model of the Python API was used on another event loop
    ├── MissingExtra                500 missing_extra: a package that the Python API needs is not installed
    ├── AnswerInvalid               500 answer_invalid: a structured answer breaks a rule that no JSON schema expresses
    ├── GrammarUntried              503 grammar_untried: no process was available to test a grammar
    ├── MediaUndecoded              503 media_undecoded: no process was available to decode an image or a clip of sound
    ├── ServerUnusable              a command cannot use the server that it means
    │   ├── ServerUnreachable       no server answers
    │   ├── NotModelyard            another program answers
    │   ├── ServerRefused           the server answers with an error
    │   │   └── KeyRefused          the server needs another API key
    │   └── AmbiguousServer         several servers run
    └── EngineError                 500 engine_error
        ├── PromptUnread            503 prompt_unread: no process was available to read a prompt
        └── HarmfulRequest          a request that ended its engine twice

Code and status are on the class, values on the instance, and the text is made by ``__str__``, so that an error can be
pickled. docs/architecture.md lists where each error with status 503 is made.
"""

from __future__ import annotations

from modelyard.errors.access import (
    ConcurrencyLimited,
    HostNotAllowed,
    InvalidApiKey,
    ModelNotPermitted,
    OriginNotAllowed,
    PermissionDenied,
    RateLimited,
    TokensReserved,
)
from modelyard.errors.base import (
    MAX_MESSAGE_CHARS,
    MAX_RETRY_AFTER_S,
    ModelyardError,
    restore_error,
)
from modelyard.errors.client import (
    AmbiguousServer,
    KeyRefused,
    NotModelyard,
    ServerRefused,
    ServerUnreachable,
    ServerUnusable,
)
from modelyard.errors.configuration import MAX_SHOWN_PROBLEMS, ConfigError, ConfigProblem
from modelyard.errors.model import (
    AnswerInvalid,
    Closed,
    EngineError,
    ForkedProcess,
    HarmfulRequest,
    InsufficientMemory,
    MissingExtra,
    ModelBusy,
    ModelFileChanged,
    ModelLoadFailed,
    ModelLoading,
    ModelUnloaded,
    NoFreeSlot,
    PromptUnread,
    QueueFull,
    WrongEventLoop,
)
from modelyard.errors.remote import (
    NodeNotFound,
    NotWithRemote,
    RemoteFailed,
    RemoteLoop,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from modelyard.errors.request import (
    ActivityNotFound,
    ApprovalNotFound,
    ContextLengthExceeded,
    ContextNotPermitted,
    ConversationNotFound,
    ConversationTooLong,
    GrammarBroken,
    InputTooLong,
    InvalidRequest,
    ModelNotFound,
    ModelRequired,
    ResponseNotFound,
    TakesNoImages,
    TakesNoSound,
    UnsupportedOperation,
)
from modelyard.errors.server import (
    GrammarUntried,
    HeadTooLarge,
    MediaUndecoded,
    OutOfMemory,
    RequestTimeout,
    RequestTooLarge,
    ServerOverloaded,
    ShuttingDown,
    StoreUnavailable,
    TooManyConnections,
    UriTooLong,
)
from modelyard.errors.startup import (
    ConversionFailed,
    LlamaCppUnusable,
    OutOfDeviceMemory,
    PortUnavailable,
    RepositoryUnavailable,
    UnusableModel,
    UnusableModels,
)

__all__ = [
    "MAX_MESSAGE_CHARS",
    "MAX_RETRY_AFTER_S",
    "MAX_SHOWN_PROBLEMS",
    "ActivityNotFound",
    "AmbiguousServer",
    "AnswerInvalid",
    "ApprovalNotFound",
    "Closed",
    "ConcurrencyLimited",
    "ConfigError",
    "ConfigProblem",
    "ContextLengthExceeded",
    "ContextNotPermitted",
    "ConversationNotFound",
    "ConversationTooLong",
    "ConversionFailed",
    "EngineError",
    "ForkedProcess",
    "GrammarBroken",
    "GrammarUntried",
    "HarmfulRequest",
    "HeadTooLarge",
    "HostNotAllowed",
    "InputTooLong",
    "InsufficientMemory",
    "InvalidApiKey",
    "InvalidRequest",
    "KeyRefused",
    "LlamaCppUnusable",
    "MediaUndecoded",
    "MissingExtra",
    "ModelBusy",
    "ModelFileChanged",
    "ModelLoadFailed",
    "ModelLoading",
    "ModelNotFound",
    "ModelNotPermitted",
    "ModelRequired",
    "ModelUnloaded",
    "ModelyardError",
    "NoFreeSlot",
    "NodeNotFound",
    "NotModelyard",
    "NotWithRemote",
    "OriginNotAllowed",
    "OutOfDeviceMemory",
    "OutOfMemory",
    "PermissionDenied",
    "PortUnavailable",
    "PromptUnread",
    "QueueFull",
    "RateLimited",
    "RemoteFailed",
    "RemoteLoop",
    "RemoteRefused",
    "RemoteTimeout",
    "RemoteUnavailable",
    "RepositoryUnavailable",
    "RequestTimeout",
    "RequestTooLarge",
    "ResponseNotFound",
    "ServerOverloaded",
    "ServerRefused",
    "ServerUnreachable",
    "ServerUnusable",
    "ShuttingDown",
    "StoreUnavailable",
    "TakesNoImages",
    "TakesNoSound",
    "TokensReserved",
    "TooManyConnections",
    "UnsupportedOperation",
    "UnusableModel",
    "UnusableModels",
    "UriTooLong",
    "WrongEventLoop",
    "restore_error",
]

# An error is pickled under the name by which it is imported, which ``engine.hosts.codec`` requires.
for _error in list(globals().values()):
    if getattr(_error, "__module__", "").startswith(f"{__name__}."):
        _error.__module__ = __name__
