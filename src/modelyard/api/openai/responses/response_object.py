"""The response object of /v1/responses."""

from __future__ import annotations

import time
from typing import Any, Final

import orjson
from pydantic import BaseModel

from modelyard.api.errors.rendering import error_object
from modelyard.api.openai.responses.calls import new_id
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openapi.answers_responses import ResponseFailure, ResponseObject, ResponseUsage
from modelyard.errors import InvalidRequest, ModelyardError
from modelyard.protocol.prompts import Sampling
from modelyard.protocol.values import Usage

# The fields of an MCP server that may hold secrets, as its URL may. They would be stored with the response.
_SECRETS: Final = ("authorization", "headers", "server_url")

# Codex shortens its conversation at this one.
_KNOWN_CODES: Final = ("context_length_exceeded",)


def queued_response(body: ResponsesRequest, sampling: Sampling) -> ResponseObject:
    """Return the response object before anything is generated: the fields of the request, and empty output.

    Args:
        body: the request.
        sampling: the values that are sampled with where the request has none.

    Raises:
        InvalidRequest: a field that the response repeats nests too deeply to be written as JSON.
    """
    text: dict[str, Any] = {"format": {"type": "text"}, "verbosity": "medium"}
    if body.text is not None:
        text |= body.text.model_dump(by_alias=True, exclude_none=True)
    response: ResponseObject = {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued",
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": body.model or "",
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "presence_penalty": _number(body.presence_penalty, sampling.presence_penalty, 0.0),
        "frequency_penalty": _number(body.frequency_penalty, sampling.frequency_penalty, 0.0),
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": _effort(body), "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.is_kept,
        "temperature": _number(body.temperature, sampling.temperature, 0.8),
        "text": text,
        "tool_choice": body.tool_choice.model_dump(exclude_none=True, exclude_unset=True)
        if isinstance(body.tool_choice, BaseModel)
        else body.tool_choice or "auto",
        "tools": [_echoed_tool(tool.model_dump(exclude_unset=True)) for tool in body.tools or []],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": _number(body.top_p, sampling.top_p, 0.95),
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
    }
    if body.conversation is not None:
        response["conversation"] = {"id": body.conversation.id}
    try:
        orjson.dumps(response)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(
            f"'tools' or 'text' cannot be returned with the response: {error}. Nest them less deeply.", "tools"
        ) from error
    return response


def failure_of(error: ModelyardError) -> ResponseFailure:
    """Return the ``error`` of a failed response.

    Its code is one that OpenAI's clients know; ``type`` has the server's own.
    """
    failure = error_object(error)
    if error.code in _KNOWN_CODES:
        code = error.code
    elif error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return {"code": code, "message": failure["message"], "type": error.code}


def usage_object(usage: Usage) -> ResponseUsage:
    """Return the ``usage`` of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _number(*values: float | None) -> float:
    return next(float(value) for value in values if value is not None)


def _effort(body: ResponsesRequest) -> str | None:
    effort = None if body.reasoning is None else body.reasoning.effort
    return "none" if effort == "off" else effort


def _echoed_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as OpenAI lists it: a function has all its fields, and an MCP server none of its secrets."""
    if tool["type"] != "function":
        return {name: value for name, value in tool.items() if value is not None and name not in _SECRETS}
    return {"description": None, "parameters": None, "strict": None, **tool}
