"""The sampling that a file recommends, from values as llama.cpp prints them."""

from __future__ import annotations

import pytest

from modelyard.engine.settings import published_sampling
from modelyard.protocol.prompts import Sampling


def test_numbers_are_read_from_their_texts() -> None:
    texts = {"general.sampling.temp": "0.600000", "general.sampling.top_k": "20", "general.sampling.min_p": "0.0"}
    assert published_sampling(texts.get) == Sampling(temperature=0.6, top_k=20, min_p=0.0)


@pytest.mark.parametrize("value", ["warm", "", "nan", "inf", "true", "[0.1, 0.2]", True, [0.5]])
def test_what_is_no_number_is_no_recommendation(value: object) -> None:
    assert published_sampling(lambda _: value) == Sampling()
