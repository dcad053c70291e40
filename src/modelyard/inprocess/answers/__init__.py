"""Answers of the Python API, with OpenAI's names and shapes."""

from modelyard.inprocess.answers.base import Answer
from modelyard.inprocess.answers.chat import (
    ChatCompletion,
    ChatCompletionMessage,
    Choice,
    ChoiceLogprobs,
    FunctionCall,
    TokenLogprob,
    ToolCall,
    TopLogprob,
)
from modelyard.inprocess.answers.chunks import ChatCompletionChunk, ChoiceDelta, ChunkChoice, ToolCallDelta
from modelyard.inprocess.answers.completions import Completion, CompletionChoice, CompletionLogprobs
from modelyard.inprocess.answers.pooling import Embedding, EmbeddingResponse, RankedDocument, RerankResponse
from modelyard.inprocess.answers.usage import CompletionUsage, PooledUsage, Timings

__all__ = [
    "Answer",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "Choice",
    "ChoiceDelta",
    "ChoiceLogprobs",
    "ChunkChoice",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionUsage",
    "Embedding",
    "EmbeddingResponse",
    "FunctionCall",
    "PooledUsage",
    "RankedDocument",
    "RerankResponse",
    "Timings",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
]
