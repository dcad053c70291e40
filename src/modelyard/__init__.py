"""Modelyard: many language models in one process, behind one OpenAI-compatible address, or in a program of yours.

In a program, builders say which models, and ``build()`` loads them:

    from modelyard import IsqType, MultiModelBuilder, MultimodalModelBuilder, TextModelBuilder

    model = (
        MultiModelBuilder()
        .add_model(TextModelBuilder("Qwen/Qwen3-4B").with_isq(IsqType.Q4K))
        .add_model_with_alias("gemma-vision", MultimodalModelBuilder("google/gemma-4-E4B-it").with_isq(IsqType.Q4K))
        .with_default_model("Qwen/Qwen3-4B")
        .build()
    )
    response = model.send_chat_request_with_model("Hello!", "gemma-vision")
    print(response.choices[0].message.content)

``Model`` is for any number of threads, ``AsyncModel`` (``await … .build_async()``) for an event loop; their methods
have the same names, and each that asks a model has a twin with ``_with_model``, where None means the default. Both are
contexts that free everything when they are left. ``model.openai_client()`` is OpenAI's own client, without a socket;
``serve`` and ``start_server`` put an HTTP server on a model, ``create_app`` returns an ASGI application. Every
error is a ``ModelyardError`` (``modelyard.errors`` draws the tree), with a ``code`` and a text that says what to do.

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelyard.errors import ModelyardError
from modelyard.version import __version__

if TYPE_CHECKING:
    from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest
    from modelyard.inprocess.answers import (
        ChatCompletion,
        ChatCompletionChunk,
        ChatCompletionMessage,
        Completion,
        EmbeddingResponse,
        RerankResponse,
    )
    from modelyard.inprocess.application import create_app
    from modelyard.inprocess.async_model import AsyncModel
    from modelyard.inprocess.builders import (
        EmbeddingModelBuilder,
        GgufModelBuilder,
        IsqType,
        ModelBuilder,
        MultimodalModelBuilder,
        TextModelBuilder,
    )
    from modelyard.inprocess.config_file import ConfigFile, from_config
    from modelyard.inprocess.model import Model
    from modelyard.inprocess.multi_model_builder import MultiModelBuilder
    from modelyard.inprocess.progress import LoadProgress
    from modelyard.inprocess.serve import Server, serve, serve_async, start_server
    from modelyard.inprocess.streams import AsyncChatStream, AsyncCompletionStream, ChatStream, CompletionStream
    from modelyard.inprocess.tools.approval import ToolApproval
    from modelyard.inprocess.tools.function_tool import FunctionTool
    from modelyard.inprocess.tools.tool_info import ToolInfo
    from modelyard.yard.stats.status import Plan

__all__ = [
    "AsyncChatStream",
    "AsyncCompletionStream",
    "AsyncModel",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatCompletionRequest",
    "ChatStream",
    "Completion",
    "CompletionRequest",
    "CompletionStream",
    "ConfigFile",
    "EmbeddingModelBuilder",
    "EmbeddingResponse",
    "FunctionTool",
    "GgufModelBuilder",
    "IsqType",
    "LoadProgress",
    "Model",
    "ModelBuilder",
    "ModelyardError",
    "MultiModelBuilder",
    "MultimodalModelBuilder",
    "Plan",
    "RerankResponse",
    "Server",
    "TextModelBuilder",
    "ToolApproval",
    "ToolInfo",
    "__version__",
    "create_app",
    "from_config",
    "serve",
    "serve_async",
    "start_server",
]


def __getattr__(name: str) -> Any:
    """What is public is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'modelyard' has no attribute '{name}'")
    from modelyard.inprocess.public import HOMES

    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "errors"])
