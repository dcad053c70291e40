"""``Model`` and ``AsyncModel``, and chats in process and over HTTP, are described once."""

from __future__ import annotations

import ast
import typing

import write_model

from modelyard.api.openai.reasoning_fields import Effort
from modelyard.api.openai.schema import IGNORED, ChatCompletionRequest
from modelyard.inprocess.requests import ChatFields, chat_request

# Arguments of their own, or implied by the method.
NOT_KEYWORDS = {"messages", "model", "stream", "stream_options", "timings_per_token"}


def test_the_methods_of_model_are_those_of_async_model() -> None:
    written = write_model.MODEL.read_text("utf-8")
    # Compared as syntax trees: the formatter breaks lines of what is written.
    assert ast.dump(ast.parse(written)) == ast.dump(ast.parse(write_model.render_model())), "run: make docs"


def test_a_chat_takes_the_same_fields_in_process_and_over_http() -> None:
    without_effect = {
        name for name, field in ChatCompletionRequest.model_fields.items() if field.description == IGNORED.description
    }
    fields = set(ChatCompletionRequest.model_fields) - NOT_KEYWORDS - without_effect
    assert set(ChatFields.__annotations__) == fields


def test_a_chat_takes_every_effort_in_process() -> None:
    for effort in typing.get_args(Effort):
        assert chat_request("Hi", None, {"reasoning_effort": effort}, stream=False).reasoning_effort == effort


def test_a_chat_takes_dry_in_process() -> None:
    dry = {
        "dry_multiplier": 0.8,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "dry_sequence_breakers": ["\n"],
    }
    body = chat_request("Hi", None, dry, stream=False)
    assert body.model_dump(include=set(dry)) == dry
