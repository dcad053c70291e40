"""Descriptions of the endpoints beyond their code: answers, examples and error statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from modelyard.api.openapi import answers_activity as activity
from modelyard.api.openapi import answers_agent as agent
from modelyard.api.openapi import answers_anthropic as anthropic
from modelyard.api.openapi import answers_llama_cpp as llama_cpp
from modelyard.api.openapi import answers_ollama as ollama
from modelyard.api.openapi import answers_openai as openai
from modelyard.api.openapi import answers_rerank as rerank
from modelyard.api.openapi import answers_responses as responses
from modelyard.api.openapi import answers_server as server

EVENTS: Final = "text/event-stream"
LINES: Final = "application/x-ndjson"
TEXT: Final = "text/plain"

GENERATES: Final = (404, 429, 500, 502, 503, 504, 507, 508)


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed answer: its media type, and an example of events or lines."""

    media_type: str
    example: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint.

    Attributes:
        tag: its section in the documentation.
        answer: schema of the whole answer; None: there is none, or it is plain text.
        example: a request body that works with the demo models.
        stream: the streamed answer; None: there is none.
        text: an example of an answer in plain text; None: there is none.
        takes_file: whether the body is a file.
        creates: whether an answer with status 201 says that something was created.
        fails: error statuses beside those of all endpoints.
        unavailable: schema of an answer with status 503 that is no error.
    """

    tag: str
    answer: type | None = None
    example: Mapping[str, Any] | Sequence[Any] | None = None
    stream: Stream | None = None
    text: str | None = None
    takes_file: bool = False
    creates: bool = False
    fails: tuple[int, ...] = ()
    unavailable: type | None = None


_HELLO: Final = [{"role": "user", "content": "Say hello."}]
_MODEL: Final = {"model_id": "smollm2"}

_CHAT_CHUNKS: Final = """\
data: {"object":"chat.completion.chunk","id":"chatcmpl-1f","created":1764000000,"model":"smollm2",\
"system_fingerprint":"fp_5c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,\
"finish_reason":null}]}

data: {"object":"chat.completion.chunk","id":"chatcmpl-1f","created":1764000000,"model":"smollm2",\
"system_fingerprint":"fp_5c","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,\
"finish_reason":null}]}

data: {"object":"chat.completion.chunk","id":"chatcmpl-1f","created":1764000000,"model":"smollm2",\
"system_fingerprint":"fp_5c","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}

data: [DONE]

"""
_TEXT_CHUNKS: Final = """\
data: {"object":"text_completion","id":"cmpl-1f","created":1764000000,"model":"smollm2",\
"system_fingerprint":"fp_5c","choices":[{"index":0,"text":" blue","logprobs":null,"finish_reason":null}]}

data: {"object":"text_completion","id":"cmpl-1f","created":1764000000,"model":"smollm2",\
"system_fingerprint":"fp_5c","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}

data: [DONE]

"""
_RESPONSE_EVENTS: Final = """\
event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1f","output_index":0,\
"content_index":0,"delta":"Hello","logprobs":[]}

"""
_MESSAGE_EVENTS: Final = """\
event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: message_stop
data: {"type":"message_stop"}

"""
_CHAT_LINES: Final = """\
{"model":"smollm2","created_at":"2026-11-25T12:00:00Z","message":{"role":"assistant","content":"Hello"},"done":false}
{"model":"smollm2","created_at":"2026-11-25T12:00:01Z","message":{"role":"assistant","content":""},"done":true,\
"done_reason":"stop","total_duration":81000000,"load_duration":1000000,"prompt_eval_count":31,\
"prompt_eval_duration":60000000,"eval_count":2,"eval_duration":20000000}
"""
_GENERATE_LINES: Final = """\
{"model":"smollm2","created_at":"2026-11-25T12:00:00Z","response":" blue","done":false}
{"model":"smollm2","created_at":"2026-11-25T12:00:01Z","response":"","done":true,"done_reason":"stop",\
"total_duration":81000000,"load_duration":1000000,"prompt_eval_count":5,"prompt_eval_duration":60000000,\
"eval_count":2,"eval_duration":20000000}
"""
_CREATE_LINES: Final = """\
{"status":"reading the files"}
{"status":"success"}
"""
_APPROVAL_EVENTS: Final = """\
event: approval
data: {"id":"apr_1","object":"agent.approval","created_at":1764500000,"expires_at":1764500300,"model":"smollm2",\
"tool":"files_write","server":"files","arguments":"{}","call_id":"call_1","round":0,"status":"waiting"}

event: approval
data: {"id":"apr_1","object":"agent.approval","created_at":1764500000,"expires_at":1764500300,"model":"smollm2",\
"tool":"files_write","server":"files","arguments":"{}","call_id":"call_1","round":0,"status":"approved"}
"""
_MODEL_EVENTS: Final = """\
event: progress
data: {"model_id":"smollm2","status":"reloading","stage":"loading","progress":0.5}

event: status
data: {"model_id":"smollm2","status":"loaded","stage":"loaded"}

event: status
data: {"model_id":"gemma3","status":"loaded","stage":"loaded","placement":"CUDA0"}

event: status
data: {"model_id":"smollm2","status":"reloading","stage":"loading","restarts":1,"last_death":"signal 11"}

"""
_NATIVE_EVENTS: Final = """\
data: {"index":0,"content":" blue","tokens":[4461],"stop":false,"id_slot":-1,"tokens_predicted":1,"tokens_evaluated":3}

"""
_ROUTER_EVENTS: Final = """\
data: {"model":"smollm2","event":"model_status","data":{"status":"loading",\
"progress":{"stages":["text_model"],"current":"text_model","value":0.5}}}

data: {"model":"smollm2","event":"model_status","data":{"status":"loaded"}}

"""
_LOG_EVENTS: Final = """\
id: 18a2b3c4d5e6f708-41
event: log
data: {"id":"18a2b3c4d5e6f708-41","time":"2026-11-29T12:05:33.493Z","level":"INFO","logger":"modelyard.access",\
"message":"POST /v1/chat/completions 200 model=smollm2 ms=153.2"}

"""
_ACTIVITY_EVENTS: Final = """\
event: snapshot
data: {"object":"list","data":[]}

event: request
data: {"id":"18a2b3c4d5e6f708-9","object":"activity","request_id":"5f0e","model":"smollm2","key":null,\
"dialect":"openai","path":"/v1/chat/completions","kind":"text","stream":true,"state":"decode",\
"arrived_at":1764500000.121,"granted_at":1764500000.122,"first_token_at":1764500000.171,"ended_at":null,\
"prompt_tokens":31,"cached_tokens":30,"answer_tokens":12,"tokens_per_second":143.1,"finish_reason":null,"error":null}

"""
_METRICS: Final = """\
# HELP modelyard_requests_running Requests that the model's engine has.
# TYPE modelyard_requests_running gauge
modelyard_requests_running{model="smollm2"} 2.0
"""

_TOKENIZE: Final = Operation(
    "llama.cpp", llama_cpp.TokenList, {"model": "smollm2", "content": "The sky is blue."}, fails=GENERATES
)
_DETOKENIZE: Final = Operation(
    "llama.cpp", llama_cpp.TokenText, {"model": "smollm2", "tokens": [504, 6376, 314]}, fails=GENERATES
)

_COUNT: Final = Operation(
    "llama.cpp", llama_cpp.ChatTokenCount, {"model": "smollm2", "messages": _HELLO}, fails=GENERATES
)

_TRANSCRIPT_EVENTS: Final = """\
data: {"type":"transcript.text.delta","delta":"Hello"}

data: {"type":"transcript.text.done","text":"Hello","usage":{"type":"tokens","input_tokens":771,"output_tokens":2,\
"total_tokens":773}}

"""
# "@" followed by a name stands for the content of a file, as in curl.
_SPEECH: Final = {"file": "@speech.wav", "model": "qwen2-audio"}

_RERANK: Final = Operation(
    "Rerank",
    rerank.RerankAnswer,
    {"model": "reranker", "query": "Why is the sky blue?", "documents": ["Air scatters blue light.", "Cats sleep."]},
    fails=GENERATES,
)

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = MappingProxyType(
    {
        ("post", "/v1/chat/completions"): Operation(
            "OpenAI",
            openai.AgentChatCompletion,
            {"model": "smollm2", "messages": _HELLO, "max_tokens": 16},
            Stream(EVENTS, _CHAT_CHUNKS),
            fails=GENERATES,
        ),
        ("post", "/v1/completions"): Operation(
            "OpenAI",
            openai.TextCompletion,
            {"model": "smollm2", "prompt": "The sky is", "max_tokens": 8},
            Stream(EVENTS, _TEXT_CHUNKS),
            fails=GENERATES,
        ),
        ("post", "/v1/embeddings"): Operation(
            "OpenAI", openai.EmbeddingList, {"model": "minilm", "input": ["The sky is blue."]}, fails=GENERATES
        ),
        ("post", "/v1/audio/transcriptions"): Operation(
            "OpenAI",
            openai.SpeechText,
            {**_SPEECH, "language": "en"},
            Stream(EVENTS, _TRANSCRIPT_EVENTS),
            fails=GENERATES,
        ),
        ("post", "/v1/audio/translations"): Operation("OpenAI", openai.SpeechText, _SPEECH, fails=GENERATES),
        **{("post", path): _RERANK for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")},
        ("post", "/v1/responses"): Operation(
            "OpenAI",
            responses.ResponseObject,
            {"model": "smollm2", "input": "Say hello.", "max_output_tokens": 16},
            Stream(EVENTS, _RESPONSE_EVENTS),
            fails=GENERATES,
        ),
        ("get", "/v1/responses/{response_id}"): Operation("OpenAI", responses.ResponseObject, fails=(404,)),
        ("delete", "/v1/responses/{response_id}"): Operation("OpenAI", responses.DeletedResponse, fails=(404,)),
        ("get", "/v1/responses/{response_id}/input_items"): Operation("OpenAI", responses.InputItems, fails=(400, 404)),
        ("post", "/v1/responses/{response_id}/cancel"): Operation("OpenAI", responses.ResponseObject, fails=(400, 404)),
        ("post", "/v1/responses/input_tokens"): Operation(
            "OpenAI", responses.InputTokens, {"model": "smollm2", "input": "Say hello."}, fails=GENERATES
        ),
        ("post", "/v1/responses/compact"): Operation(
            "OpenAI",
            responses.CompactedResponse,
            {"model": "smollm2", "input": [*_HELLO, {"role": "assistant", "content": "Hello!"}]},
            fails=GENERATES,
        ),
        ("post", "/v1/conversations"): Operation("OpenAI", responses.ConversationObject, {"items": _HELLO}),
        ("get", "/v1/conversations/{conversation_id}"): Operation("OpenAI", responses.ConversationObject, fails=(404,)),
        ("post", "/v1/conversations/{conversation_id}"): Operation(
            "OpenAI", responses.ConversationObject, {"metadata": {"topic": "greetings"}}, fails=(404,)
        ),
        ("delete", "/v1/conversations/{conversation_id}"): Operation(
            "OpenAI", responses.DeletedConversation, fails=(404,)
        ),
        ("get", "/v1/conversations/{conversation_id}/items"): Operation(
            "OpenAI", responses.InputItems, fails=(400, 404)
        ),
        ("post", "/v1/conversations/{conversation_id}/items"): Operation(
            "OpenAI", responses.InputItems, {"items": _HELLO}, fails=(404,)
        ),
        ("get", "/v1/conversations/{conversation_id}/items/{item_id}"): Operation(
            "OpenAI", responses.ConversationItem, fails=(404,)
        ),
        ("delete", "/v1/conversations/{conversation_id}/items/{item_id}"): Operation(
            "OpenAI", responses.ConversationObject, fails=(404,)
        ),
        ("get", "/v1/models"): Operation("OpenAI", server.ModelList),
        ("get", "/v1/models/{model_id}"): Operation("OpenAI", server.ModelObject, fails=(404,)),
        ("post", "/v1/messages"): Operation(
            "Anthropic",
            anthropic.MessageObject,
            {"model": "smollm2", "max_tokens": 16, "messages": _HELLO},
            Stream(EVENTS, _MESSAGE_EVENTS),
            fails=GENERATES,
        ),
        ("post", "/v1/messages/count_tokens"): Operation(
            "Anthropic", anthropic.TokenCount, {"model": "smollm2", "messages": _HELLO}, fails=GENERATES
        ),
        ("get", "/api/version"): Operation("Ollama", ollama.OllamaVersion),
        ("get", "/api/tags"): Operation("Ollama", ollama.ListedModels),
        ("get", "/api/ps"): Operation("Ollama", ollama.LoadedModels),
        ("post", "/api/pull"): Operation(
            "Ollama", None, {"model": "smollm2"}, Stream(LINES, '{"status":"success"}\n'), fails=(404,)
        ),
        ("post", "/api/create"): Operation(
            "Ollama",
            None,
            {"model": "poet", "from": "smollm2", "system": "You answer in verse.", "parameters": {"temperature": 0.9}},
            Stream(LINES, _CREATE_LINES),
            fails=(404, 503),
        ),
        ("post", "/api/copy"): Operation(
            "Ollama", example={"source": "smollm2", "destination": "assistant"}, fails=(404, 503)
        ),
        ("delete", "/api/delete"): Operation("Ollama", example={"model": "assistant"}, fails=(404, 503)),
        ("post", "/api/blobs/{digest}"): Operation("Ollama", takes_file=True, creates=True, fails=(400, 408, 413, 503)),
        ("get", "/api/blobs/{digest}"): Operation("Ollama", fails=(400, 404)),
        ("post", "/api/show"): Operation("Ollama", ollama.ShownModel, {"model": "smollm2"}, fails=(404,)),
        ("post", "/api/chat"): Operation(
            "Ollama",
            ollama.ChatAnswer,
            {"model": "smollm2", "messages": _HELLO, "stream": False, "options": {"num_predict": 16}},
            Stream(LINES, _CHAT_LINES),
            fails=GENERATES,
        ),
        ("post", "/api/generate"): Operation(
            "Ollama",
            ollama.GenerateAnswer,
            {"model": "smollm2", "prompt": "The sky is", "raw": True, "stream": False, "options": {"num_predict": 8}},
            Stream(LINES, _GENERATE_LINES),
            fails=GENERATES,
        ),
        ("post", "/api/embed"): Operation(
            "Ollama", ollama.EmbedAnswer, {"model": "minilm", "input": ["The sky is blue."]}, fails=GENERATES
        ),
        ("post", "/api/embeddings"): Operation(
            "Ollama", ollama.EmbeddingsAnswer, {"model": "minilm", "prompt": "The sky is blue."}, fails=GENERATES
        ),
        **{("post", path): _TOKENIZE for path in ("/tokenize", "/v1/tokenize")},
        **{("post", path): _DETOKENIZE for path in ("/detokenize", "/v1/detokenize")},
        ("post", "/completion"): Operation(
            "llama.cpp",
            llama_cpp.NativeCompletions,
            {"model": "smollm2", "prompt": "The sky is", "n_predict": 8},
            Stream(EVENTS, _NATIVE_EVENTS),
            fails=GENERATES,
        ),
        ("post", "/infill"): Operation(
            "llama.cpp",
            llama_cpp.NativeCompletions,
            {"model": "coder", "input_prefix": "def twice(n):\n    return ", "input_suffix": "\n", "n_predict": 8},
            Stream(EVENTS, _NATIVE_EVENTS),
            fails=GENERATES,
        ),
        ("post", "/v1/fim/completions"): Operation(
            "llama.cpp",
            openai.ChatCompletion,
            {"model": "coder", "prompt": "def twice(n):\n    return ", "suffix": "\n", "max_tokens": 8},
            Stream(EVENTS, _CHAT_CHUNKS),
            fails=GENERATES,
        ),
        ("post", "/apply-template"): Operation(
            "llama.cpp", llama_cpp.RenderedPrompt, {"model": "smollm2", "messages": _HELLO}, fails=GENERATES
        ),
        ("post", "/embedding"): Operation(
            "llama.cpp", llama_cpp.TextEmbeddings, {"model": "minilm", "content": "The sky is blue."}, fails=GENERATES
        ),
        **{("post", path): _COUNT for path in ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens")},
        ("get", "/props"): Operation("llama.cpp", llama_cpp.ServerProperties, fails=(400, 404)),
        ("get", "/slots"): Operation("llama.cpp", llama_cpp.Slots, fails=(400, 404, 503)),
        ("get", "/lora-adapters"): Operation("llama.cpp", llama_cpp.Adapters, fails=(400, 404)),
        ("post", "/lora-adapters"): Operation(
            "llama.cpp", llama_cpp.RouterDone, [{"id": 0, "scale": 0.5}], fails=(404,)
        ),
        ("get", "/models/sse"): Operation("llama.cpp", stream=Stream(EVENTS, _ROUTER_EVENTS)),
        ("get", "/models"): Operation("llama.cpp", llama_cpp.RouterModels),
        ("post", "/models"): Operation(
            "llama.cpp", llama_cpp.RouterDone, {"model": "Qwen/Qwen3-4B-GGUF:Q4_K_M"}, fails=(404, 503)
        ),
        ("delete", "/models"): Operation("llama.cpp", llama_cpp.RouterDone, fails=(400, 404, 503)),
        ("post", "/models/load"): Operation(
            "llama.cpp", llama_cpp.RouterDone, {"model": "smollm2"}, fails=(404, 503, 507)
        ),
        ("post", "/models/unload"): Operation(
            "llama.cpp", llama_cpp.RouterDone, {"model": "smollm2"}, fails=(404, 503)
        ),
        ("post", "/v1/load_lora_adapter"): Operation(
            "Models",
            example={"base_model_name": "smollm2", "lora_name": "sql", "lora_path": "/models/sql.gguf"},
            text="Success: LoRA adapter 'sql' added successfully.",
            fails=(404, 507),
        ),
        ("post", "/v1/unload_lora_adapter"): Operation(
            "Models",
            example={"lora_name": "sql"},
            text="Success: LoRA adapter 'sql' removed successfully.",
            fails=(404,),
        ),
        ("get", "/v1/models/history"): Operation("Models", activity.ModelHistoryList, fails=(400,)),
        ("get", "/v1/models/events"): Operation("Models", stream=Stream(EVENTS, _MODEL_EVENTS)),
        ("post", "/v1/models/unload"): Operation(
            "Models", server.ModelStatusAnswer, {**_MODEL, "mode": "suspend"}, fails=(404, 503)
        ),
        ("post", "/v1/models/reload"): Operation("Models", server.ModelStatusAnswer, _MODEL, fails=(404, 503, 507)),
        ("post", "/v1/models/prepare"): Operation("Models", server.ModelStatusAnswer, _MODEL, fails=(404, 503)),
        ("post", "/v1/models/retune"): Operation(
            "Models", server.RetunedModel, {**_MODEL, "pinned": True, "priority": 5}, fails=(404,)
        ),
        ("post", "/v1/models/status"): Operation("Models", server.ModelStatusAnswer, _MODEL, fails=(404,)),
        ("post", "/v1/models/plan"): Operation("Models", server.LoadPlan, _MODEL, fails=(404, 503)),
        ("get", "/v1/agent/tools"): Operation("Tools", agent.AgentToolList, fails=(400, 404)),
        ("get", "/v1/agent/servers"): Operation("Tools", agent.AgentServerList),
        ("get", "/v1/agent/approvals"): Operation("Tools", agent.WaitingApprovalList, fails=(400,)),
        ("get", "/v1/agent/approvals/events"): Operation("Tools", stream=Stream(EVENTS, _APPROVAL_EVENTS)),
        ("post", "/v1/agent/approvals/{approval_id}"): Operation(
            "Tools", agent.ResolvedApproval, {"decision": "approve"}, fails=(404,)
        ),
        ("get", "/v1/server"): Operation("Server", server.ServerObject),
        ("get", "/v1/nodes"): Operation("Server", server.NodeList),
        ("get", "/v1/activity"): Operation("Server", activity.ActivityList, fails=(400, 404)),
        ("get", "/v1/activity/events"): Operation("Server", stream=Stream(EVENTS, _ACTIVITY_EVENTS), fails=(400, 503)),
        ("get", "/v1/activity/{activity_id}"): Operation("Server", activity.ActivityDetail, fails=(404,)),
        ("get", "/v1/doctor"): Operation("Server", server.DoctorReport),
        ("get", "/v1/logs"): Operation(
            "Server", server.LogLines, stream=Stream(EVENTS, _LOG_EVENTS), fails=(400, 404, 503)
        ),
        ("post", "/v1/config/reload"): Operation("Server", server.ReloadedConfig, fails=(400, 503)),
        ("get", "/health"): Operation(
            "Server", server.ModelHealth, text="OK", fails=(404,), unavailable=server.ModelHealth
        ),
        ("get", "/health/live"): Operation("Server", text="OK"),
        ("get", "/health/ready"): Operation("Server", server.Readiness, unavailable=server.Readiness),
        ("get", "/metrics"): Operation("Server", text=_METRICS),
    }
)
