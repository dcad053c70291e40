"""Keyword arguments of requests in process: the fields of the HTTP API, by the same names.

Generated from the schemas of the HTTP API by `make docs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from pydantic import BaseModel

    from modelyard.inprocess.tools.function_tool import FunctionTool


class ChatFields(TypedDict, total=False):
    """Fields of a chat, as in ``ChatCompletionRequest`` of the HTTP API; None leaves a field out."""

    reasoning_effort: Literal["none", "off", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    enable_thinking: bool | None
    reasoning: Mapping[str, Any] | None
    thinking: Mapping[str, Any] | None
    thinking_budget: int | None
    reasoning_budget: int | None
    reasoning_budget_tokens: int | None
    thinking_budget_tokens: int | None
    chat_template_kwargs: Mapping[str, Any] | None
    response_format: type[BaseModel] | Mapping[str, Any] | None
    grammar: Mapping[str, Any] | str | None
    json_schema: Mapping[str, Any] | None
    structured_outputs: Mapping[str, Any] | None
    guided_json: Mapping[str, Any] | str | None
    guided_regex: str | None
    guided_choice: Sequence[str] | None
    guided_grammar: str | None
    prompt_logprobs: int | None
    return_tokens_as_token_ids: bool | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    top_n_sigma: float | None
    xtc_probability: float | None
    xtc_threshold: float | None
    dynatemp_range: float | None
    dynatemp_exponent: float | None
    mirostat: int | None
    mirostat_tau: float | None
    mirostat_eta: float | None
    samplers: str | Sequence[str] | None
    repetition_penalty: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    logit_bias: (
        Mapping[str, float | bool] | Mapping[int, float | bool] | Sequence[tuple[int | str, float | bool]] | None
    )
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    dry_penalty_last_n: int | None
    dry_sequence_breakers: Sequence[str] | None
    stream_options: Mapping[str, Any] | None
    max_tokens: int | None
    max_completion_tokens: int | None
    n_predict: int | None
    min_tokens: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_str_in_output: bool | None
    skip_special_tokens: bool | None
    ignore_eos: bool | None
    timings_per_token: bool | None
    n: int | None
    user: str | None
    keep_alive: float | str | None
    allowed_token_ids: Sequence[int] | None
    bad_words: Sequence[str] | None
    truncate_prompt_tokens: int | None
    t_max_predict_ms: int | None
    return_progress: bool | None
    lora: Sequence[Mapping[str, Any]] | None
    messages: str | Sequence[Any]
    tools: Sequence[Mapping[str, Any] | Callable[..., Any] | FunctionTool] | None
    tool_choice: str | Mapping[str, Any] | Callable[..., Any] | FunctionTool | None
    parallel_tool_calls: bool | None
    logprobs: bool | None
    top_logprobs: int | None
    prediction: Mapping[str, Any] | None
    continue_final_message: bool | None
    add_generation_prompt: bool | None
    metadata: Mapping[str, Any] | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    prompt_cache_options: Mapping[str, Any] | None
    service_tier: str | None
    store: bool | None
    verbosity: Literal["low", "medium", "high"] | None
    max_tool_rounds: int | None
    agent_permission: Literal["auto", "ask", "deny"] | None
    web_search_options: Mapping[str, Any] | None


class CompletionFields(TypedDict, total=False):
    """Fields of a text completion, as in ``CompletionRequest`` of the HTTP API; None leaves a field out."""

    response_format: type[BaseModel] | Mapping[str, Any] | None
    grammar: Mapping[str, Any] | str | None
    json_schema: Mapping[str, Any] | None
    structured_outputs: Mapping[str, Any] | None
    guided_json: Mapping[str, Any] | str | None
    guided_regex: str | None
    guided_choice: Sequence[str] | None
    guided_grammar: str | None
    prompt_logprobs: int | None
    return_tokens_as_token_ids: bool | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    top_n_sigma: float | None
    xtc_probability: float | None
    xtc_threshold: float | None
    dynatemp_range: float | None
    dynatemp_exponent: float | None
    mirostat: int | None
    mirostat_tau: float | None
    mirostat_eta: float | None
    samplers: str | Sequence[str] | None
    repetition_penalty: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    logit_bias: (
        Mapping[str, float | bool] | Mapping[int, float | bool] | Sequence[tuple[int | str, float | bool]] | None
    )
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    dry_penalty_last_n: int | None
    dry_sequence_breakers: Sequence[str] | None
    stream_options: Mapping[str, Any] | None
    max_tokens: int | None
    max_completion_tokens: int | None
    n_predict: int | None
    min_tokens: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_str_in_output: bool | None
    skip_special_tokens: bool | None
    ignore_eos: bool | None
    timings_per_token: bool | None
    n: int | None
    user: str | None
    keep_alive: float | str | None
    allowed_token_ids: Sequence[int] | None
    bad_words: Sequence[str] | None
    truncate_prompt_tokens: int | None
    t_max_predict_ms: int | None
    return_progress: bool | None
    lora: Sequence[Mapping[str, Any]] | None
    prompt: str | Sequence[Any]
    suffix: str | None
    echo: bool | None
    logprobs: int | None
    best_of: int | None


class EmbeddingFields(TypedDict, total=False):
    """Fields of embeddings, as in ``EmbeddingsBody`` of the HTTP API; None leaves a field out."""

    input: str | Sequence[Any] | Mapping[str, Any]
    dimensions: int | None
    user: str | None
    keep_alive: float | str | None


class RerankFields(TypedDict, total=False):
    """Fields of a ranking, as in ``RerankBody`` of the HTTP API; None leaves a field out."""

    top_n: int | None
    return_documents: bool | None
    max_tokens_per_doc: int | None
    user: str | None
    keep_alive: float | str | None


class TokenizeFields(TypedDict, total=False):
    """Fields of a tokenization, as in ``TokenizeBody`` of the HTTP API; None leaves a field out."""

    keep_alive: float | str | None
    tools: Sequence[Mapping[str, Any] | Callable[..., Any] | FunctionTool] | None
    chat_template_kwargs: Mapping[str, Any] | None
    continue_final_message: bool | None
    add_generation_prompt: bool | None
    add_special: bool | None
    add_special_tokens: bool | None
    parse_special: bool | None
