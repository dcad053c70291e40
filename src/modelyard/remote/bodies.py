"""Writes requests as the JSON bodies of OpenAI's API, with the fields that vLLM and llama.cpp add to it. Pure.

Only fields that a request sets are written: some servers refuse those that they do not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.errors import UnsupportedOperation
from modelyard.protocol.prompts import (
    Chat,
    Infill,
    Media,
    NamedTool,
    Pieces,
    Prompt,
    Sampling,
    Text,
    Tokens,
    ends_in_an_answer,
)
from modelyard.protocol.requests import Embed, Rank, Submit
from modelyard.remote.media import part_of

# Fields of ``Sampling`` with other names in requests.
_RENAMED = {"penalty_window": "repeat_last_n", "dry_window": "dry_penalty_last_n"}
_BIASES = ("logit_bias", "text_bias")


@dataclass(frozen=True, slots=True)
class RemoteRequest:
    """A request to another server.

    Attributes:
        path: below the base URL.
        body: as JSON.
        is_chat: whether the answer is that of a chat.
        max_calls: how many tool calls the answer may have; None: no limit.
    """

    path: str
    body: dict[str, Any]
    is_chat: bool = False
    max_calls: int | None = None


def text_request(submit: Submit, model: str, defaults: Sampling) -> RemoteRequest:
    """Return a request for text, which is always answered as a stream.

    Encoding images takes long, so it may run on any thread.

    Args:
        submit: the request.
        model: the name of the model there.
        defaults: of sampling.

    Raises:
        UnsupportedOperation: no OpenAI-compatible server can be asked for that.
    """
    if submit.scores_prompt:
        raise UnsupportedOperation(
            f"The log-probabilities of a prompt are not available from '{model}', which another server has.",
            "prompt_logprobs" if submit.prompt_logprobs is not None else "echo",
        )
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    prompt = submit.prompt
    if isinstance(prompt, Chat):
        body |= _chat(prompt)
    else:
        body |= _prompt(prompt, model)
    limits = [limit for limit in (submit.max_tokens, submit.max_answer, submit.max_context) if limit is not None]
    if limits:
        body["max_tokens"] = min(limits)
    body |= _sampling(submit.sampling.over(defaults))
    body |= _limits(submit) | _constraint(submit)
    if submit.logprobs is not None:
        if isinstance(prompt, Chat):
            body |= {"logprobs": True, **({"top_logprobs": submit.logprobs} if submit.logprobs else {})}
        else:
            body["logprobs"] = submit.logprobs
    if submit.echoes:
        body["echo"] = True
    if submit.prediction:
        body["prediction"] = {"type": "content", "content": submit.prediction}
    if isinstance(prompt, Chat):
        is_single = isinstance(prompt.tool_choice, NamedTool) or not prompt.parallel_tool_calls
        return RemoteRequest("/chat/completions", body, is_chat=True, max_calls=1 if is_single else None)
    return RemoteRequest("/completions", body)


def embedding_request(embed: Embed, model: str) -> RemoteRequest:
    """Return a request for vectors."""
    inputs = [text.text if isinstance(text, Text) else list(text.ids) for text in embed.inputs]
    return RemoteRequest("/embeddings", {"model": model, "input": inputs, "encoding_format": "float"})


def rank_request(rank: Rank, model: str) -> RemoteRequest:
    """Return a request for scores, in the shape of Jina and Cohere."""
    body: dict[str, Any] = {"model": model, "query": rank.query, "documents": list(rank.documents)}
    if rank.max_document_tokens is not None:
        body["max_tokens_per_doc"] = rank.max_document_tokens
    return RemoteRequest("/rerank", body)


def conversation_key(request: Submit | Embed | Rank, session: str) -> str:
    """Return what is equal for the requests of one conversation; "": nothing is.

    Args:
        request: the request.
        session: as the client names the conversation; "": its beginning names it.
    """
    salt = request.cache_salt if isinstance(request, Submit) else ""
    if session:
        return f"{salt}\n{session}"
    if not isinstance(request, Submit):
        return ""
    match request.prompt:
        case Chat(messages):
            # Up to the first turn of the user, which later requests of the conversation repeat.
            asked = next((n for n, message in enumerate(messages) if message.get("role") == "user"), len(messages) - 1)
            beginning = [_beginning(message.get("content")) for message in messages[: asked + 1]]
        case Text(text):
            beginning = [text[:1024]]
        case _:
            return ""
    digest = hashlib.blake2b("\0".join([salt, *beginning]).encode("utf-8", "surrogatepass"), digest_size=16)
    return digest.hexdigest()


def _beginning(content: Any) -> str:
    """Return a key of the content of a message: the beginnings of its texts, and its images and clips."""
    parts = content if isinstance(content, tuple) else (content,)
    return "\1".join(part.digest.hex() if isinstance(part, Media) else str(part)[:4096] for part in parts)


def _chat(chat: Chat) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [_message(message) for message in chat.messages]}
    if chat.tools:
        body["tools"] = [dict(tool) for tool in chat.tools]
        match chat.tool_choice:
            case NamedTool(name):
                body["tool_choice"] = {"type": "function", "function": {"name": name}}
            case "auto":
                pass
            case choice:
                body["tool_choice"] = choice
        if not chat.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    options = dict(chat.options)
    effort = options.pop("reasoning_effort", None)
    if isinstance(effort, str):
        body["reasoning_effort"] = effort
        # It followed from the effort, and servers that do not know it may refuse it.
        if options.get("enable_thinking") is (effort not in ("none", "off")):
            del options["enable_thinking"]
    if options:
        body["chat_template_kwargs"] = options
    if chat.continues:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    elif not chat.opens_turn:
        body["add_generation_prompt"] = False
    elif ends_in_an_answer(chat.messages):
        # Without it, some servers would go on from the message.
        body["add_generation_prompt"] = True
    return body


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    written = dict(message)
    content = written.get("content")
    if isinstance(content, tuple):
        written["content"] = [
            {"type": "text", "text": part} if isinstance(part, str) else part_of(part) for part in content
        ]
    elif isinstance(content, str):
        # Some of them are of a type of ours.
        written["content"] = str(content)
    if written.get("tool_calls"):
        written["tool_calls"] = [_call(call) for call in written["tool_calls"]]
    return written


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments") or {})
    return {**call, "function": function}


def _prompt(prompt: Prompt, model: str) -> dict[str, Any]:
    match prompt:
        case Text(text):
            return {"prompt": str(text)}
        case Tokens(ids):
            return {"prompt": list(ids)}
        case Pieces(parts) if all(isinstance(part, str) for part in parts):
            return {"prompt": "".join(map(str, parts))}
        case Pieces(parts) if all(isinstance(part, int) for part in parts):
            return {"prompt": list(parts)}
        case Infill(before, behind, "", ()):
            return {"prompt": before, "suffix": behind}
    raise UnsupportedOperation(
        f"The model '{model}' is another server's, which takes prompts that are a text, token ids or a conversation, "
        "and no other ones.",
        "prompt",
    )


def _sampling(sampling: Sampling) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in sampling.__slots__:
        value = getattr(sampling, name)
        if value is None or name in _BIASES:
            continue
        body[_RENAMED.get(name, name)] = list(value) if isinstance(value, tuple) else value
    biases = {str(token): bias for token, bias in (sampling.logit_bias or {}).items()} | dict(sampling.text_bias or {})
    if biases:
        # JSON has no infinity; -100 is as good as a ban, and the least that OpenAI takes.
        body["logit_bias"] = {token: max(bias, -100.0) for token, bias in biases.items()}
    return body


def _limits(submit: Submit) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "stop": list(submit.stop),
        "stop_token_ids": list(submit.stop_tokens),
        "min_tokens": submit.min_tokens,
        "ignore_eos": submit.ignore_eos,
        "include_stop_str_in_output": submit.includes_stop,
        "bad_words": list(submit.bad_words),
        "thinking_budget": submit.reasoning_budget,
        "allowed_token_ids": None if submit.allowed_tokens is None else list(submit.allowed_tokens),
        "t_max_predict_ms": None if submit.max_predict_s is None else round(submit.max_predict_s * 1000),
    }
    body = {name: value for name, value in fields.items() if value}
    if submit.shows_special:
        body["skip_special_tokens"] = False
    if submit.max_prompt_tokens is not None:
        body["truncate_prompt_tokens"] = submit.max_prompt_tokens or -1
    return body


def _constraint(submit: Submit) -> dict[str, Any]:
    if submit.response_format is not None:
        return {"response_format": dict(submit.response_format)}
    match submit.grammar:
        case {"type": "regex" | "choice" | "grammar" | "structural_tag" as kind, "value": value}:
            return {"structured_outputs": {kind: value}}
        case {"type": kind, "value": value}:
            return {"grammar": {"type": kind, "value": value}}
    return {}
