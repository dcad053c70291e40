"""LoRA adapters as models: one set of weights and one engine, and answers as if each were by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.errors import ModelNotFound
from modelyard.formats.gguf.read import read_header
from modelyard.protocol.adapters import AdapterFile, AdapterUse
from modelyard.protocol.events import Failed
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import SetAdapters, Stop
from modelyard.protocol.values import SequenceId
from support.adapters import write_adapter, write_drawn_model, write_vector
from support.engine_driver import Driven, engine

PROMPT = "Tell me about the sea and the ships on it."
NO_DIFFERENCE = 0.3
"""Limit of how far log-probabilities differ where cells lie in another order; see docs/architecture.md."""

SETS = {
    "base": (),
    "sea": (AdapterUse("sea", 1.0),),
    "land": (AdapterUse("land", 1.0),),
    "both": (AdapterUse("sea", 1.0), AdapterUse("land", 0.5)),
    "half": (AdapterUse("sea", 0.5),),
}


@pytest.fixture(scope="module")
def files(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterFile]:
    folder = tmp_path_factory.mktemp("adapters")
    written = {
        name: write_adapter(folder / f"{name}.gguf", weights["smollm2"], seed=seed)
        for seed, name in enumerate(("sea", "land"))
    }
    return {
        name: AdapterFile(name, path, name.encode().hex(), read_header(path).size_bytes)
        for name, path in written.items()
    }


@pytest.fixture(scope="module")
def adapted(weights: dict[str, Path], files: dict[str, AdapterFile]) -> Iterator[Driven]:
    driven = engine(weights["smollm2"], adapters=tuple(files.values()), max_seqs=8)
    yield driven
    driven.stopped(Stop())


def agree(one: Driven, a: int, b: int) -> bool:
    """Whether two answers are equal up to a token where two are nearly equally likely."""
    for mine, other in zip(one.logprobs[SequenceId(a)], one.logprobs[SequenceId(b)], strict=True):
        if abs(mine.logprob - other.logprob) > NO_DIFFERENCE:
            return False
        if mine.token != other.token:
            return True
    return True


def test_answers_with_different_adapters_beside_each_other_are_those_of_each_alone(adapted: Driven) -> None:
    for number, uses in enumerate(SETS.values()):
        adapted.answer(PROMPT, number=number, adapters=uses, max_tokens=16, logprobs=0)
    texts = [adapted.texts[SequenceId(number)] for number in range(len(SETS))]
    assert len(set(texts)) == len(texts), "the adapters change answers"
    for number, uses in enumerate(SETS.values()):
        adapted.submit(100 + number, PROMPT, adapters=uses, max_tokens=16, logprobs=0)
    for number in range(len(SETS)):
        usage = adapted.finished(100 + number).usage
        assert usage.completion_tokens == 16
        assert agree(adapted, number, 100 + number), list(SETS)[number]


def test_no_prompt_is_reused_with_other_adapters(adapted: Driven) -> None:
    prompt = "A prompt that has not been seen before, of more than a few tokens."
    cached = []
    for number, name in enumerate(("sea", "base", "half", "sea")):
        adapted.answer(prompt, number=200 + number, adapters=SETS[name], max_tokens=1)
        cached.append(adapted.finished(200 + number).usage.cached_tokens > 0)
    assert cached == [False, False, False, True]


def test_a_scale_of_zero_is_the_model_alone(adapted: Driven) -> None:
    alone = adapted.answer(PROMPT, number=300, max_tokens=16)
    assert adapted.answer(PROMPT, number=301, max_tokens=16, adapters=(AdapterUse("sea", 0.0),)) == alone


def test_adapters_change_while_streams_with_others_go_on(adapted: Driven, files: dict[str, AdapterFile]) -> None:
    adapted.answer(PROMPT, number=400, adapters=SETS["sea"], max_tokens=80, logprobs=0)
    adapted.submit(401, PROMPT, adapters=SETS["sea"], max_tokens=80, logprobs=0)
    adapted.until(lambda: SequenceId(401) in adapted.texts)
    adapted.send(SetAdapters((files["land"],)))
    adapted.submit(402, PROMPT, adapters=SETS["sea"])
    adapted.submit(403, PROMPT, adapters=SETS["land"], max_tokens=8)
    adapted.until(lambda: SequenceId(402) in adapted.ended)
    refused = adapted.ended[SequenceId(402)]
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, ModelNotFound)
    adapted.finished(403)
    assert adapted.finished(401).usage.completion_tokens == 80
    assert agree(adapted, 400, 401)
    adapted.send(SetAdapters(tuple(files.values())))
    adapted.answer(PROMPT, number=404, adapters=SETS["sea"], max_tokens=16, logprobs=0)
    assert adapted.texts[SequenceId(404)] == adapted.texts[SequenceId(1)]


def test_a_suspended_answer_goes_on_with_its_adapter(
    adapted: Driven, files: dict[str, AdapterFile], weights: dict[str, Path]
) -> None:
    adapted.answer(PROMPT, number=500, adapters=SETS["sea"], max_tokens=40, logprobs=0)
    first = engine(weights["smollm2"], adapters=tuple(files.values()))
    first.submit(501, PROMPT, adapters=SETS["sea"], max_tokens=40, logprobs=0)
    first.until(lambda: len(first.texts.get(SequenceId(501), "")) > 20)
    (state,) = first.suspended(Stop(suspend=True, keep_bytes=1 << 30))
    adapted.logprobs[SequenceId(501)] = first.logprobs[SequenceId(501)]
    adapted.send(Resume(state))
    assert adapted.finished(501).usage.completion_tokens == 40
    assert agree(adapted, 500, 501)


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_an_adapter_computes_what_weights_do_into_which_it_is_merged(tmp_path: Path, scale: float) -> None:
    base = write_drawn_model(tmp_path / "base.gguf")
    adapter = write_adapter(tmp_path / "adapter.gguf", base, strength=0.3, targets=("attn_q", "attn_v", "ffn_down"))
    merged = write_drawn_model(tmp_path / "merged.gguf", adapter, scale)
    file = AdapterFile("a", adapter, "aa", read_header(adapter).size_bytes)
    prompt, said = Tokens((1, 260, 261, 262, 263, 260)), []
    for path, uses in ((base, ()), (base, (AdapterUse("a", scale),)), (merged, ())):
        driven = engine(path, adapters=(file,) if path == base else (), context_length=64, max_seqs=1)
        driven.answer(prompt, max_tokens=1, logprobs=5, adapters=uses)
        ((first, *_),) = [driven.logprobs[SequenceId(0)]]
        said.append(dict(first.top))
        driven.stopped(Stop())
    alone, adapted_, merged_ = said
    assert adapted_ == pytest.approx(merged_, abs=1e-3)
    assert alone != pytest.approx(merged_, abs=1e-1)


def test_prompts_never_cross_control_vectors(tmp_path: Path) -> None:
    base = write_drawn_model(tmp_path / "base.gguf", layers=3)
    adapter = write_adapter(tmp_path / "adapter.gguf", base, strength=0.3)
    vector = write_vector(tmp_path / "vector.gguf", {1: [0.5] * 32, 2: [-1.0] * 32})
    files = (
        AdapterFile("a", adapter, "0a", read_header(adapter).size_bytes),
        AdapterFile("v", vector, "0b", read_header(vector).size_bytes, is_vector=True),
    )
    driven = engine(base, adapters=files, context_length=256, max_seqs=2, prefix_slots=8)
    steered, adapted_ = AdapterUse("v", 1.0), AdapterUse("a", 1.0)
    sets = [(), (steered,), (AdapterUse("v", 0.5),), (steered, adapted_), (adapted_,)]
    said: list[float] = []
    for number, uses in enumerate([*sets, *sets]):
        driven.answer(Tokens((1, *[260, 261, 262, 263] * 8)), number=number, max_tokens=1, logprobs=0, adapters=uses)
        is_reused = driven.finished(number).usage.cached_tokens > 0
        assert is_reused == (number >= len(sets))
        said.append(driven.logprobs[SequenceId(number)][0].logprob)
    assert len({round(each, 3) for each in said[: len(sets)]}) == len(sets)
    assert said[len(sets) :] == pytest.approx(said[: len(sets)], abs=0.01)
    driven.stopped(Stop())
