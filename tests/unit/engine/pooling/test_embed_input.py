"""Inputs become token ids, or are refused by name."""

from __future__ import annotations

import pytest

from modelyard.engine.pooling.embed_input import InputReader
from modelyard.engine.pooling.shape import DEFAULT_WHOLE_INPUT, PART_TOKENS, EmbeddingShape, embedding_shape
from modelyard.engine.settings import DEFAULT_CONTEXT
from modelyard.errors import InputTooLong, InvalidRequest
from modelyard.protocol.prompts import Text, Tokens


def reader(longest: int = 10) -> InputReader:
    """A token for each word, between 1 and 2."""
    return InputReader(
        lambda text, add_special: [1, *[3] * len(text.split()), 2] if add_special else [3],
        vocab_size=50,
        longest=longest,
    )


def test_a_text_has_its_special_tokens_and_ids_are_as_they_are() -> None:
    assert reader().read((Text("the sea"), Tokens((7, 49)))) == [[1, 3, 3, 2], [7, 49]]


def test_an_input_may_be_as_long_as_the_model_takes() -> None:
    assert len(reader().read((Tokens((3,) * 10),))[0]) == 10
    assert len(reader().read((Text("w " * 8),))[0]) == 10


@pytest.mark.parametrize(
    ("given", "length"),
    [(Text("w " * 9), "11 tokens"), (Tokens((3,) * 11), "11 tokens"), (Text("w " * 100_000), "far too much text")],
)
def test_a_longer_one_is_refused_with_its_place(given: Text | Tokens, length: str) -> None:
    with pytest.raises(InputTooLong) as refused:
        reader().read((Text("fine"), given))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input[1]")
    assert f"'input[1]' has {length}, but the model takes 10 tokens at most" in str(refused.value)


def test_a_long_text_of_few_tokens_is_no_long_input() -> None:
    assert reader().read((Text("w" * 10_000),)) == [[1, 3, 2]]


@pytest.mark.parametrize("token", [-1, 50])
def test_an_id_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(
        InvalidRequest, match=f"'input' holds token {token}, but this model's vocabulary has ids 0 to 49"
    ):
        reader().read((Tokens((1, token)),))


def test_a_text_that_the_vocabulary_cannot_write_is_refused() -> None:
    without_unknown = InputReader(lambda _text, _special: [1, -1, 2], vocab_size=50, longest=10)
    with pytest.raises(InvalidRequest, match="'input' has parts for which the model's vocabulary has no token"):
        without_unknown.read((Text("?"),))


def test_what_has_no_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'input' is empty"):
        reader().read((Tokens(()),))


@pytest.mark.parametrize(
    ("trained", "configured", "is_whole", "shape"),
    [
        (512, None, True, EmbeddingShape(512, 512)),
        (8192, None, True, EmbeddingShape(DEFAULT_WHOLE_INPUT, DEFAULT_WHOLE_INPUT)),
        (8192, 8192, True, EmbeddingShape(8192, 8192)),
        (512, 4096, True, EmbeddingShape(512, 512)),
        (512, 64, True, EmbeddingShape(64, 512)),
        (32768, None, False, EmbeddingShape(DEFAULT_CONTEXT, PART_TOKENS)),
        (32768, 16384, False, EmbeddingShape(16384, PART_TOKENS)),
    ],
)
def test_what_must_be_computed_whole_makes_steps_as_long_as_the_longest_input(
    trained: int, configured: int | None, is_whole: bool, shape: EmbeddingShape
) -> None:
    assert embedding_shape(trained, configured, 512, is_whole=is_whole) == shape


@pytest.mark.parametrize("words", [9, 100_000])
def test_a_text_that_is_too_long_is_cut_before_its_last_special_token_where_that_is_wanted(words: int) -> None:
    letters = InputReader(
        lambda text, add_special: [1, *[3] * len(text.split()), 2] if add_special else [3] * len(text.split()),
        vocab_size=50,
        longest=10,
    )
    assert letters.read((Text("w " * words),), truncates=True) == [[1, *[3] * 8, 2]]
    assert letters.read((Text("w w"),), truncates=True) == [[1, 3, 3, 2]]
