"""The tools that embed and rank texts."""

from __future__ import annotations

from typing import Final

from modelyard.api.mcp.tools import Tool, ToolAnswer, ToolCall, tool_answer
from modelyard.api.openai.embeddings import EmbeddingsBody, embedded
from modelyard.api.rerank.routes import RerankBody, ranked
from modelyard.api.serving.wait_options import wait_options_of


async def embed(call: ToolCall) -> ToolAnswer:
    """Turn texts into vectors.

    Raises:
        ModelyardError: as ``Yard.embed``.
    """
    body, ignored = await call.body(EmbeddingsBody, call.arguments)
    request = body.request(wait_options_of(call.http, body.keep_alive))
    return tool_answer(await embedded(call.services.yard, request, body), ignored)


async def rerank(call: ToolCall) -> ToolAnswer:
    """Sort documents by how well they answer a query.

    Raises:
        ModelyardError: as ``Yard.rank``.
    """
    body, ignored = await call.body(RerankBody, call.arguments)
    body.checked()
    request = body.request(wait_options_of(call.http, body.keep_alive))
    return tool_answer(await ranked(call.services.yard, request, body), ignored)


POOLING_TOOLS: Final = (
    Tool(
        "embed",
        "Embed texts",
        "Turn texts into vectors with an embedding model of this server. list_models shows which models have the "
        "capability 'embeddings'.",
        "inference",
        EmbeddingsBody,
        embed,
        listed=("input", "model", "encoding_format"),
        required=("input",),
        is_read_only=True,
        is_idempotent=True,
    ),
    Tool(
        "rerank",
        "Rank documents",
        "Sort documents by how well they answer a query, the best first, with a reranking model of this server. "
        "list_models shows which models have the capability 'rerank'.",
        "inference",
        RerankBody,
        rerank,
        listed=("query", "documents", "model", "top_n", "return_documents", "max_tokens_per_doc"),
        required=("query", "documents"),
        # The other name of the documents has an answer of another shape.
        without=frozenset({"texts", "return_text"}),
        is_read_only=True,
        is_idempotent=True,
    ),
)
"""The tools of this file."""
