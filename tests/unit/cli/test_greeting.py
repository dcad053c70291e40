"""The printed command sends a model a request of a kind that it supports."""

from __future__ import annotations

import json
import shlex

import pytest

from modelyard.cli.greeting import curl_line
from modelyard.hub import Kind
from modelyard.yard.stats.status import ModelStatus

URL = "http://localhost:1234/v1"


def a_model(kind: Kind | None, *, can_chat: bool | None) -> ModelStatus:
    unknown = dict.fromkeys(
        (
            *("context_length", "quantization", "size_bytes", "architecture", "dimensions", "predicted_bytes"),
            *("can_see", "can_hear", "can_reason", "can_fill", "reason", "load_s"),
        )
    )
    return ModelStatus(
        id="it's m",
        aliases=(),
        kind=kind,
        status="loaded",
        is_default=True,
        created=0,
        can_chat=can_chat,
        shared_bytes=0,
        resident_bytes=0,
        is_pinned=False,
        is_parked=False,
        **unknown,
    )


@pytest.mark.parametrize(
    ("kind", "can_chat", "path", "fields"),
    [
        ("text", True, "/chat/completions", {"messages"}),
        ("multimodal", True, "/chat/completions", {"messages"}),
        (None, None, "/chat/completions", {"messages"}),
        ("text", False, "/completions", {"prompt", "max_tokens"}),
        ("embedding", False, "/embeddings", {"input"}),
        ("rerank", False, "/rerank", {"query", "documents"}),
    ],
)
def test_each_kind_is_asked_what_it_answers(
    kind: Kind | None, can_chat: bool | None, path: str, fields: set[str]
) -> None:
    words = shlex.split(curl_line(URL, a_model(kind, can_chat=can_chat), needs_key=False))
    assert words[:2] == ["curl", URL + path]
    body = json.loads(words[-1])
    assert body.pop("model") == "it's m"
    assert set(body) == fields


def test_a_key_is_asked_for_where_one_is_needed() -> None:
    line = curl_line(URL, a_model("text", can_chat=True), needs_key=True)
    assert "Authorization: Bearer <one of the API keys>" in shlex.split(line)
