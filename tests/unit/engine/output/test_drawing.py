"""Tokens are drawn as llama.cpp's samplers draw them, without going through all candidates."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelyard.engine.llama import SamplerChain
from modelyard.engine.output.drawing import DrawingSampler
from modelyard.engine.output.narrowing import Candidates, Narrowing, drawn, drawn_of_all, most_likely, narrowed
from modelyard.engine.output.sampler import GreedySampler, make_sampler
from modelyard.protocol.prompts import Sampling

VOCAB = 5000
MODEL: Any = SimpleNamespace(vocab_size=VOCAB, end_tokens=frozenset({1}))
CONTEXT = 512
PROMPT = list(range(0, 200, 3)) * 2

PLAIN = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.8, top_p=0.95),
    Sampling(temperature=0.8, top_p=0.3),
    Sampling(temperature=1.3, top_p=0.9999),
    Sampling(temperature=0.7, top_k=40),
    Sampling(temperature=0.7, top_k=40, top_p=0.9, min_p=0.05),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.5, top_k=3000),
    Sampling(temperature=1.5, top_k=2 * VOCAB, top_p=0.9),
    Sampling(temperature=1.2, min_p=0.05),
    Sampling(temperature=1.2, min_p=1.0),
    Sampling(temperature=0.9, top_p=0.9, samplers=("top_p",)),
    Sampling(temperature=0.9, samplers=()),
]

PENALIZED = [
    Sampling(temperature=0.0, repetition_penalty=1.3),
    Sampling(temperature=0.0, frequency_penalty=0.7, presence_penalty=0.4, penalty_window=7),
    Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.2, frequency_penalty=0.3, penalty_window=20),
    Sampling(temperature=1.0, presence_penalty=-0.5, logit_bias={7: 3.0, 8: -100.0}),
    Sampling(temperature=0.0, repetition_penalty=1.3, penalty_window=0),
    Sampling(temperature=0.0, repetition_penalty=1.3, samplers=("top_k",)),
]


def rows(seed: int, count: int, *, masked: bool = False) -> list[npt.NDArray[np.float32]]:
    """Logits like those of a model: most tokens are unlikely, and some steps are nearly certain."""
    random = np.random.default_rng(seed)
    made = []
    for step in range(count):
        row = random.normal(0, 2.5, VOCAB).astype(np.float32)
        row[random.integers(0, VOCAB, 12)] += np.float32(4 + step % 9)
        if masked:
            row[random.random(VOCAB) < 0.98] = -np.inf
        made.append(row)
    return made


def chain_of(sampling: Sampling) -> SamplerChain:
    return SamplerChain(sampling, sampling.logit_bias or {}, MODEL, CONTEXT, PROMPT)


def sampler_of(sampling: Sampling, answer: tuple[int, ...] = ()) -> Any:
    return make_sampler(sampling, MODEL, CONTEXT, PROMPT, ban_end=False, answer=answer)


def tokens_of(sampler: Any, seen: list[npt.NDArray[np.float32]]) -> list[int]:
    answer = []
    for row in seen:
        token, _ = sampler.draw(row.copy())
        sampler.accept(token)
        answer.append(token)
    return answer


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sampling", [*PLAIN, *PENALIZED])
def test_a_seed_draws_the_tokens_of_llama_cpp(sampling: Sampling, masked: bool) -> None:
    seeded = replace(sampling, seed=7)
    seen = rows(1, 60, masked=masked)
    sampler = sampler_of(seeded)
    assert isinstance(sampler, DrawingSampler | GreedySampler)
    answer = tokens_of(sampler, seen)
    assert answer == tokens_of(chain_of(seeded), seen)
    # Another engine goes on with the same random numbers and counts.
    assert tokens_of(sampler_of(seeded, tuple(answer[:25])), seen[25:]) == answer[25:]


def test_equal_logits_are_drawn_as_llama_cpp_draws_them() -> None:
    for sampling in (Sampling(temperature=1.0, seed=3, top_k=20), Sampling(temperature=1.0, seed=3, top_p=0.5)):
        seen = [np.round(row) for row in rows(2, 30)]
        assert tokens_of(sampler_of(sampling), seen) == tokens_of(chain_of(sampling), seen)


@pytest.mark.parametrize("sampling", PLAIN)
def test_a_token_is_drawn_from_the_distribution_of_llama_cpp(sampling: Sampling) -> None:
    for row in rows(3, 8):
        expected = chain_of(sampling).draw(row.copy())[1]()
        _, probabilities = sampler_of(sampling).draw(row.copy())
        # llama.cpp adds up in 32 bits where it looks for the end of the nucleus.
        assert np.abs(probabilities() - expected).max() < 1e-3


@pytest.mark.parametrize("size", [3, 1000, 5000, 49_152, 50_001])
def test_numbers_draw_each_token_as_often_as_it_is_likely(size: int) -> None:
    logits = np.random.default_rng(size).normal(0, 3, size).astype(np.float32)
    logits[::2] = -np.inf
    candidates = narrowed(logits, Narrowing(temperature=0.5), is_exact=False)
    assert candidates is not None
    count = 3000
    found = np.bincount([drawn(candidates, (number + 0.5) / count) for number in range(count)], minlength=size)
    # The numbers are spaced evenly, so that each token is drawn as often as it is likely, to within one at either end.
    group_ends = 2 * count / 1024 if size > 4096 else 0
    assert np.abs(found - count * candidates.probabilities(size)).max() <= 2 + group_ends
    assert not found[::2].any()
    assert {drawn(candidates, 0.0), drawn(candidates, 1 - 2.0**-53)} <= set(np.flatnonzero(logits > -np.inf).tolist())


@pytest.mark.parametrize("temperature", [0.05, 1.0, 3.0])
def test_all_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 1.5, 40).astype(np.float32)
    logits[3:6] = -np.inf
    logits[7] += 8
    count = 20_000
    found = np.bincount([drawn_of_all(logits, temperature, random.random) for _ in range(count)], minlength=40) / count
    expected = Candidates(None, logits / np.float32(temperature), is_sorted=False).probabilities(40)
    # Five standard deviations.
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected / count) + 1e-12).all()


@pytest.mark.parametrize(("size", "count"), [(10, 3), (10, 10), (10, 20), (5000, 1), (5000, 256), (9999, 300)])
def test_the_most_likely_are_found_in_their_order(size: int, count: int) -> None:
    values = np.random.default_rng(count).integers(0, 2 * size, size).astype(np.float32)
    assert most_likely(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()


def test_two_samplers_without_a_seed_draw_independently() -> None:
    seen = rows(4, 40)
    flat = Sampling(temperature=5.0)
    assert tokens_of(sampler_of(flat), seen) != tokens_of(sampler_of(flat), seen)
