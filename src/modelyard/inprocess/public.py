"""Where each public name lives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NAMES = {
    "modelyard.api.openai.schema": ("ChatCompletionRequest", "CompletionRequest"),
    "modelyard.inprocess.answers": (
        "ChatCompletion",
        "ChatCompletionChunk",
        "ChatCompletionMessage",
        "Completion",
        "EmbeddingResponse",
        "RerankResponse",
    ),
    "modelyard.inprocess.application": ("create_app",),
    "modelyard.inprocess.async_model": ("AsyncModel",),
    "modelyard.inprocess.builders": (
        "EmbeddingModelBuilder",
        "GgufModelBuilder",
        "IsqType",
        "ModelBuilder",
        "MultimodalModelBuilder",
        "TextModelBuilder",
    ),
    "modelyard.inprocess.config_file": ("ConfigFile", "from_config"),
    "modelyard.inprocess.model": ("Model",),
    "modelyard.inprocess.multi_model_builder": ("MultiModelBuilder",),
    "modelyard.inprocess.serve": ("Server", "serve", "serve_async", "start_server"),
    "modelyard.inprocess.streams": (
        "AsyncChatStream",
        "AsyncCompletionStream",
        "ChatStream",
        "CompletionStream",
    ),
    "modelyard.inprocess.progress": ("LoadProgress",),
    "modelyard.inprocess.tools.approval": ("ToolApproval",),
    "modelyard.inprocess.tools.function_tool": ("FunctionTool",),
    "modelyard.inprocess.tools.tool_info": ("ToolInfo",),
    "modelyard.yard.stats.status": ("Plan",),
}

HOMES: Mapping[str, str] = MappingProxyType({name: module for module, names in _NAMES.items() for name in names})
