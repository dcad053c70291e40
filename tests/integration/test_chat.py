"""One chat with each of the demo models, whole and streamed: the test with real weights that ``make quick`` runs."""

from __future__ import annotations

import pytest
from openai import OpenAI

from support.server import RunningServer

# Both models are sure of each number: the second prompt is reused, which moves the last bits of near ties.
MESSAGES = [{"role": "user", "content": "1, 2, 3, 4, 5, 6, 7,"}]


@pytest.mark.parametrize("model", ["smollm2", "google/gemma3"])
def test_a_streamed_answer_is_the_whole_answer(server: RunningServer, model: str) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key="not-used") as client:
        whole = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8)
        chunks = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert whole.usage.completion_tokens == 8
    assert whole.choices[0].message.content.strip() == streamed.strip() != ""
