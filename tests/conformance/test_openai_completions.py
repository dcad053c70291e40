"""The official OpenAI client's completions of text. It checks what it reads."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from support.server import RunningServer


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with server.client(_strict_response_validation=True) as client:
        yield client


def test_prompts_and_choices_are_counted_through(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="smollm2", prompt=["One, two,", "A, B,"], n=2, max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == 12


def test_the_prompt_is_echoed(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="smollm2", prompt="One, two,", echo=True, max_tokens=3)
    assert answer.choices[0].text.startswith("One, two,")


def test_logprobs_come_token_by_token(client: openai.OpenAI) -> None:
    choice = client.completions.create(model="smollm2", prompt="One, two,", logprobs=2, max_tokens=3).choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text
    assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.top_logprobs) == 3


def test_a_stream_ends_with_its_usage(server: RunningServer) -> None:
    """Not checked: the client's type leaves out that a chunk has no reason to end, as it has none at OpenAI either."""
    with server.client() as client:
        chunks = list(
            client.completions.create(
                model="smollm2", prompt="One, two,", max_tokens=3, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[-2].choices[0].finish_reason == "length"


def test_infill_needs_a_model_that_can(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="smollm2", prompt="def f(", suffix="):", max_tokens=3)
    assert refused.value.code == "unsupported_operation"
