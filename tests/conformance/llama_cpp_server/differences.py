"""What differs on purpose from llama.cpp's server, by the names of its tests, each with the reason.

Single assertions that differ are in ``assertions``: the rest of their tests counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OTHER_FILES: Final[Mapping[str, str]] = {
    "test_compat_gcp.py": "Google's prediction protocol is not served.",
    "test_lora.py": "An adapter is used by requests that name it, and not from the start by all requests.",
    "test_mcp_servers.py": "llama.cpp's own bridge to MCP servers is not served.",
    "test_proxy.py": "llama.cpp's proxy for its web page is not served.",
    "test_router.py": "Models are named in the configuration, and not fetched or started with a router's presets.",
    "test_slot_save.py": "Prompts are kept and found again without slots and files that a client names.",
    "test_stream.py": "Streams are not kept on the server to be resumed by the id of a conversation.",
    "test_tools_builtin.py": "The server runs no tools of its own on the machine.",
}

_PAGE: Final = "llama.cpp's web page is not served."
_ORIGINS: Final = "Pages of other origins are refused unless the configuration names their origin."
_NETWORK: Final = "The test fetches its picture from a hub."
_TOKENIZER: Final = "The prompt is longer than the context only with their model's tokenizer."
_SHIFT: Final = "The context is never shifted: an answer ends where it is full."
_METRICS: Final = "Metrics have names of their own, with a label for the model."
_VARIABLES: Final = "Templates get the variables that transformers gives them, without date_string and datetime."
_WEIGHTS: Final = "The reranker that stands in has no weights: all scores are equal."
_MIXED: Final = "An input of embeddings is a text or token ids, not both."

DIFFERENCES: Final[Mapping[str, str]] = {
    "test_basic.py::test_server_multiple_addresses": "A server listens on one address.",
    "test_basic.py::test_server_slots": "/slots cannot be switched off; it needs a key with the scope read.",
    "test_basic.py::test_no_ui": _PAGE,
    "test_basic.py::test_server_model_aliases_and_tags": "Models have no tags, and the first name is the id.",
    "test_chat_completion.py::test_invalid_chat_completion_req[string]": "A bare text counts as one user message.",
    "test_chat_completion.py::test_invalid_chat_completion_req[messages7]": "Turns of one role in a row are taken.",
    "test_chat_completion.py::test_context_size_exceeded": "The error is OpenAI's context_length_exceeded.",
    "test_chat_completion.py::test_context_size_exceeded_stream": "The error is OpenAI's context_length_exceeded.",
    "test_compat_anthropic.py::test_anthropic_tool_result_with_image": "The refusal is a 400: the request is wrong.",
    "test_compat_anthropic.py::test_anthropic_vision_format_accepted": "The refusal is a 400: the request is wrong.",
    "test_compat_anthropic.py::test_anthropic_vision_base64_with_multimodal_model": _NETWORK,
    "test_compat_anthropic.py::test_anthropic_empty_messages": "Anthropic's API refuses an empty conversation.",
    "test_compat_oai_responses.py::test_responses_stream_with_llama_telemetry": "Objects of the Responses API have no "
    "fields beyond that API's.",
    "test_completion.py::test_nocache_long_input_prompt": _TOKENIZER,
    "test_ctx_shift.py::test_ctx_shift_enabled": _SHIFT,
    "test_ctx_shift.py::test_ctx_shift_disabled_long_prompt": _TOKENIZER,
    "test_embedding.py::test_embedding_mixed_input[-False]": "OpenAI's API refuses an empty input.",
    "test_embedding.py::test_embedding_mixed_input[input3-False]": _MIXED,
    "test_embedding.py::test_embedding_mixed_input[input7-True]": _MIXED,
    "test_embedding.py::test_embedding_pooling_none": "Vectors of single tokens are not served.",
    "test_embedding.py::test_embedding_pooling_none_oai": "Vectors of single tokens are not served.",
    "test_embedding.py::test_embedding_error_prompt_too_long": "The message has other words.",
    "test_ignore_eos.py::test_ignore_eos_populates_logit_bias": "End tokens are banned apart from logit_bias.",
    "test_kv_keep_only_active.py::test_clear_and_restore": "The test reads llama.cpp's log.",
    "test_metrics.py": _METRICS,
    "test_rerank.py::test_rerank": _WEIGHTS,
    "test_rerank.py::test_rerank_tei_format": _WEIGHTS,
    "test_security.py::test_access_static_assets_without_api_key": _PAGE,
    "test_security.py::test_cors_options": _ORIGINS,
    "test_security.py::test_cors_origins_localhost_reflects": _ORIGINS,
    "test_security.py::test_cors_origins_localhost_rejects": _ORIGINS,
    "test_security.py::test_cors_origins_defaults_to_localhost_with_tools_enabled": _ORIGINS,
    "test_security.py::test_cors_proxy_only_forwards_explicit_proxy_headers": "The server is no proxy.",
    "test_security.py::test_local_media_file": "Files are named by absolute paths, and only those that exist are read.",
    "test_sleep.py::test_server_sleep_read_only_endpoints": _METRICS,
    "test_sleep.py::test_server_sleep_metrics_buckets": _METRICS,
    "test_speculative.py::test_with_ctx_shift": _SHIFT,
    "test_template.py::test_date_inside_prompt": _VARIABLES,
    "test_vision_api.py::test_models_supports_multimodal_capability": "Ollama's list of models is at /api/tags.",
    "test_vision_api.py::test_v1_models_supports_multimodal_capability": "Ollama's list of models is at /api/tags.",
    "test_vision_api.py::test_vision_chat_completion": _NETWORK,
    "test_vision_api.py::test_vision_chat_completion_token_count": _NETWORK,
    "test_vision_api.py::test_vision_completion": _NETWORK,
    "test_vision_api.py::test_vision_embeddings": _NETWORK,
    "test_vision_api.py::test_vision_embeddings_oai_content": _NETWORK,
}
