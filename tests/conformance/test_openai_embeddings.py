"""The official OpenAI client asks for embeddings of the real server with real weights."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from modelyard.config import validate_config
from support.server import RunningServer, serving

PAGE = Path(__file__).parent.parent.parent / "docs" / "embeddings.md"
TEXTS = ["The sea is wide.", "A ship in a storm.", "How do I reset my password?"]
# Of "sea" in MiniLM's vocabulary, between the tokens that begin and end a text.
SEA = [101, 2712, 102]

# Sums are in another order where a batch has other inputs, too.
ROUNDING = 5e-4


@pytest.fixture(scope="module")
def server(minilm: Path) -> Iterator[RunningServer]:
    models = [{"model_id": str(minilm), "alias": "minilm", "aliases": ["text-embedding-3-small"]}]
    with serving(validate_config({"models": models}, source="test")) as running:
        yield running


def test_a_text_becomes_a_vector(server: RunningServer) -> None:
    """The client asks for base64 by itself, and decodes it."""
    with server.client() as client:
        answer = client.embeddings.create(model="text-embedding-3-small", input="The sea is wide.")
    (data,) = answer.data
    assert (answer.object, answer.model) == ("list", "minilm")
    assert (data.object, data.index, len(data.embedding)) == ("embedding", 0, 384)
    assert np.linalg.norm(data.embedding) == pytest.approx(1.0, abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 7


def test_floats_are_the_same_numbers_as_base64(server: RunningServer) -> None:
    with server.client() as client:
        decoded = client.embeddings.create(model="minilm", input="The sea is wide.").data[0].embedding
        floats = client.embeddings.create(model="minilm", input="The sea is wide.", encoding_format="float")
        raw = client.embeddings.create(model="minilm", input="The sea is wide.", encoding_format="base64")
    assert np.array(floats.data[0].embedding, np.float32).tolist() == pytest.approx(decoded, abs=1e-6)
    assert isinstance(raw.data[0].embedding, str)
    assert len(raw.data[0].embedding) == 384 * 4 * 4 / 3


def test_a_list_becomes_a_list_in_its_order(server: RunningServer) -> None:
    with server.client() as client:
        answer = client.embeddings.create(model="minilm", input=TEXTS)
        alone = [client.embeddings.create(model="minilm", input=text) for text in TEXTS]
    assert [data.index for data in answer.data] == [0, 1, 2]
    for data, one in zip(answer.data, alone, strict=True):
        assert data.embedding == pytest.approx(one.data[0].embedding, abs=ROUNDING)
    assert answer.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)


def test_token_ids_stand_for_their_text(server: RunningServer) -> None:
    with server.client() as client:
        text = client.embeddings.create(model="minilm", input="sea")
        ids = client.embeddings.create(model="minilm", input=SEA)
        lists = client.embeddings.create(model="minilm", input=[SEA, SEA])
    for data in (*ids.data, *lists.data):
        assert data.embedding == pytest.approx(text.data[0].embedding, abs=ROUNDING)
    assert (ids.usage.prompt_tokens, lists.usage.prompt_tokens) == (3, 6)


def test_an_unknown_model_is_not_found(server: RunningServer) -> None:
    with server.client() as client, pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="nobody", input="a")
    assert refused.value.code == "model_not_found"


async def test_fifty_requests_at_once_are_each_as_if_alone(server: RunningServer) -> None:
    texts = [f"Text number {number} speaks {'of the sea ' * (number % 7)}" for number in range(50)]
    async with server.async_client() as client:
        together = await asyncio.gather(*(client.embeddings.create(model="minilm", input=text) for text in texts))
        alone = await client.embeddings.create(model="minilm", input=texts[7])
        listed = await client.embeddings.create(model="minilm", input=texts)
    assert together[7].data[0].embedding == pytest.approx(alone.data[0].embedding, abs=ROUNDING)
    for answer, data in zip(together, listed.data, strict=True):
        assert answer.data[0].embedding == pytest.approx(data.embedding, abs=ROUNDING)


def test_the_example_of_the_documents_works_as_pasted(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(program.replace("http://localhost:1234", server.url), PAGE.name, "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out == "2 vectors of 384\n"
