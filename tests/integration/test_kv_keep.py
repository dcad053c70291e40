"""Prompts outlive their engine, in memory or on disk: what comes back is not computed again, and says the same."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelyard.engine.loading.weights import WeightsPool
from modelyard.protocol.events import Cancelled, Finished, Stopped
from modelyard.protocol.kv_snapshot import KeptPrefixes
from modelyard.protocol.messages import Restore
from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven, Steps, engine, long_prompt

PLENTY = 2**40
KEEP = Stop(keep_bytes=PLENTY)
CONTEXT = 1024


@pytest.fixture
def smollm2(drawn_weights: dict[str, Path]) -> Path:
    return drawn_weights["smollm2"]


def keeping(path: Path, how: str, kv_keep_bytes: int = PLENTY, **settings: Any) -> Driven:
    chosen = {"context_length": CONTEXT} | settings
    return engine(path, kv_keep=how, kv_keep_bytes=kv_keep_bytes, **chosen)


def prompts(path: Path) -> tuple[Tokens, Tokens]:
    """A prompt, and its conversation's next turn."""
    turns = long_prompt(path, 120)
    return Tokens(turns.ids[:100]), turns


def first_turn(driven: Driven, prompt: Tokens, number: int = 0) -> None:
    """After it, the engine holds the prompt and nothing else of it."""
    driven.answer(prompt, number=number, max_tokens=1)


def next_turn(driven: Driven, prompt: Tokens) -> tuple[str, Finished]:
    return driven.answer(prompt, number=1, max_tokens=24), driven.finished(1)


def kept_by(driven: Driven, stop: Stop = KEEP) -> KeptPrefixes:
    kept = driven.stopped(stop).kept
    assert kept is not None
    return kept


@pytest.fixture(params=["memory", "disk"])
def how(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"how": request.param, "kv_dir": tmp_path}


def unloaded_and_loaded(driven: Driven, path: Path, how: dict[str, Any], stop: Stop | None = KEEP) -> Driven:
    kept = driven.stopped(stop).kept
    again = keeping(path, **how)
    if kept is not None:
        again.send(Restore(kept))
    return again


@pytest.mark.parametrize(
    ("model", "length", "how"),
    [("smollm2", 100, "memory"), ("smollm2", 100, "disk"), ("gemma3", 640, "memory")],
    indirect=["how"],
    ids=["in memory", "on disk", "beyond a window"],
)
def test_a_conversation_goes_on_after_an_unload_as_if_there_had_been_none(
    drawn_weights: dict[str, Path], how: dict[str, Any], model: str, length: int
) -> None:
    path = drawn_weights[model]
    turns = long_prompt(path, length + 20)
    never_unloaded = keeping(path, "off")
    first_turn(never_unloaded, Tokens(turns.ids[:length]))
    expected, finished = next_turn(never_unloaded, turns)
    never_unloaded.stopped(Stop())
    assert finished.usage.cached_tokens == length

    driven = keeping(path, **how)
    first_turn(driven, Tokens(turns.ids[:length]))
    again = unloaded_and_loaded(driven, path, how)
    assert next_turn(again, turns) == (expected, finished)
    again.stopped(Stop())


@pytest.mark.parametrize(("model", "how"), [("smollm2", "memory"), ("gemma3", "disk")], indirect=["how"])
def test_a_prompt_asked_again_is_found_and_one_token_of_it_computed(
    drawn_weights: dict[str, Path], how: dict[str, Any], model: str
) -> None:
    path = drawn_weights[model]
    prompt, _ = prompts(path)
    driven = keeping(path, **how)
    expected = driven.answer(prompt)
    again = unloaded_and_loaded(driven, path, how)
    assert again.answer(prompt) == expected
    assert again.finished().usage.cached_tokens == 99
    again.stopped(Stop())


@pytest.mark.long
@pytest.mark.parametrize("how", ["disk"], indirect=True)
def test_behind_a_window_a_prompt_is_only_reused_to_its_end(
    drawn_weights: dict[str, Path], how: dict[str, Any]
) -> None:
    """llama.cpp saves what its last token looks at: a prompt that parts from it earlier is computed."""
    turns = long_prompt(drawn_weights["gemma3"], 580)
    driven = keeping(drawn_weights["gemma3"], **how)
    first_turn(driven, turns)
    again = unloaded_and_loaded(driven, drawn_weights["gemma3"], how)
    again.answer(Tokens((*turns.ids[:550], *turns.ids[:30])), number=1, max_tokens=2)
    assert again.finished(1).usage.cached_tokens == 0
    again.stopped(Stop())


def test_what_a_cancelled_sequence_had_computed_is_kept_too(
    smollm2: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, turn = prompts(smollm2)
    driven = keeping(smollm2, **how)
    Steps(monkeypatch).after(6, partial(driven.send, KEEP))
    driven.submit(0, prompt)
    again = unloaded_and_loaded(driven, smollm2, how, stop=None)
    assert isinstance(driven.ended[SequenceId(0)], Cancelled)
    assert next_turn(again, turn)[1].usage.cached_tokens >= 100
    again.stopped(Stop())


def test_off_keeps_nothing(smollm2: Path, tmp_path: Path) -> None:
    driven = keeping(smollm2, "off", kv_dir=tmp_path)
    first_turn(driven, prompts(smollm2)[0])
    assert driven.stopped(KEEP) == Stopped(None)
    assert list(tmp_path.iterdir()) == []


# In memory


@pytest.fixture
def several(smollm2: Path) -> list[Tokens]:
    ids = long_prompt(smollm2, 400).ids
    return [Tokens(ids[at : at + 50]) for at in (7, 111, 203, 300)]


@pytest.mark.parametrize("by", ["the settings", "the stop"])
def test_no_more_is_kept_in_memory_than_may_be_the_most_recently_used_first(
    smollm2: Path, several: list[Tokens], by: str
) -> None:
    driven = keeping(smollm2, "memory")
    for number, prompt in enumerate(several):
        first_turn(driven, prompt, number)
    whole = kept_by(driven)
    assert [prompt.tokens for prompt in whole.prompts] == [prompt.ids for prompt in reversed(several)]
    limit = whole.size_bytes // 2
    driven = keeping(smollm2, "memory", limit if by == "the settings" else PLENTY)
    for number, prompt in enumerate(several):
        first_turn(driven, prompt, number)
    half = kept_by(driven, Stop(keep_bytes=PLENTY if by == "the settings" else limit))
    assert half.size_bytes <= limit
    assert [prompt.tokens for prompt in half.prompts] == [several[3].ids, several[2].ids]


def test_suspended_sequences_go_before_prompts_and_are_not_kept_twice(
    smollm2: Path, several: list[Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch)
    sizes = []
    for room in (PLENTY, None):
        driven = keeping(smollm2, "memory")
        first_turn(driven, several[0])
        limit = sizes[0][0] + 10 if room is None else room
        steps.after(5, partial(driven.send, Stop(suspend=True, keep_bytes=limit)))
        driven.submit(1, several[1])
        (state,) = driven.suspended()
        assert isinstance(driven.over, Stopped)
        assert driven.over.kept is not None
        assert all(prompt.tokens == several[0].ids for prompt in driven.over.kept.prompts)
        sizes.append((state.size_bytes, driven.over.kept.size_bytes))
    assert sizes[0][0] > 0 < sizes[0][1]
    assert sizes[1] == (sizes[0][0], 0)


def test_restored_prompts_keep_their_order_and_are_dropped_where_they_do_not_fit(
    smollm2: Path, several: list[Tokens]
) -> None:
    driven = keeping(smollm2, "memory")
    for number, prompt in enumerate(several):
        first_turn(driven, prompt, number)
    kept = kept_by(driven)
    small = keeping(smollm2, "memory", max_seqs=1, prefix_slots=1)
    small.send(Restore(kept))
    again = kept_by(small)
    assert [prompt.tokens for prompt in again.prompts] == [several[3].ids, several[2].ids]


def test_prompts_of_other_settings_are_not_restored(
    smollm2: Path, several: list[Tokens], caplog: pytest.LogCaptureFixture
) -> None:
    driven = keeping(smollm2, "memory")
    first_turn(driven, several[0])
    other = keeping(smollm2, "memory", context_length=512)
    other.send(Restore(kept_by(driven)))
    assert kept_by(other).prompts == ()
    assert "other weights or settings" in caplog.text


def test_a_load_that_is_given_up_hands_prompts_back(smollm2: Path, several: list[Tokens]) -> None:
    driven = keeping(smollm2, "memory")
    first_turn(driven, several[0])
    kept = kept_by(driven)
    for keep_bytes, handed_back in ((PLENTY, kept), (10, None)):
        never = Driven(smollm2, starts=False, pool=WeightsPool())
        never.send(Restore(kept), Stop(keep_bytes=keep_bytes))
        never.engine.start()
        assert never.stopped().kept is handed_back


# On disk


@pytest.fixture
def on_disk(smollm2: Path, tmp_path: Path) -> Path:
    """A folder with one prompt."""
    driven = keeping(smollm2, "disk", kv_dir=tmp_path)
    first_turn(driven, prompts(smollm2)[0])
    assert driven.stopped(Stop()) == Stopped(None)
    assert len(list(tmp_path.iterdir())) == 1
    return tmp_path


def cached_tokens(path: Path, folder: Path, **settings: Any) -> int:
    driven = keeping(path, "disk", kv_dir=folder, **settings)
    _, finished = next_turn(driven, prompts(path)[1])
    driven.stopped(Stop())
    return finished.usage.cached_tokens


@pytest.mark.parametrize("damage", ["a byte flipped", "cut off", "another beginning"])
def test_a_damaged_file_is_deleted_with_one_log_line_and_not_used(
    smollm2: Path, on_disk: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    (file,) = on_disk.iterdir()
    raw = bytearray(file.read_bytes())
    match damage:
        case "a byte flipped":
            raw[len(raw) // 2] ^= 1
        case "cut off":
            del raw[-1000:]
        case "another beginning":
            raw[:4] = b"GGUF"
    file.write_bytes(raw)
    driven = keeping(smollm2, "disk", kv_dir=on_disk)
    assert not file.exists()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    _, finished = next_turn(driven, prompts(smollm2)[1])
    assert finished.usage.cached_tokens == 0
    driven.stopped(Stop())


def test_files_of_other_weights_and_other_settings_are_ignored_and_stay(
    drawn_weights: dict[str, Path], smollm2: Path, on_disk: Path
) -> None:
    assert cached_tokens(drawn_weights["gemma3"], on_disk) == 0
    assert cached_tokens(smollm2, on_disk, context_length=512) == 0
    assert cached_tokens(smollm2, on_disk) == 100


def test_weights_that_changed_do_not_find_what_was_kept(smollm2: Path, on_disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "smollm2.gguf"
    other.parent.mkdir()
    content = bytearray(smollm2.read_bytes())
    other.write_bytes(content)
    assert cached_tokens(other, on_disk) == 100
    content[-5] ^= 1
    other.write_bytes(content)
    assert cached_tokens(other, on_disk) == 0


def test_the_folder_keeps_its_limit(smollm2: Path, several: list[Tokens], tmp_path: Path) -> None:
    driven = keeping(smollm2, "disk", kv_dir=tmp_path)
    for number, prompt in enumerate(several):
        first_turn(driven, prompt, number)
    driven.stopped(Stop())
    limit = sum(file.stat().st_size for file in tmp_path.iterdir()) // 2
    driven = keeping(smollm2, "disk", limit, kv_dir=tmp_path)
    driven.stopped(Stop())
    assert 0 < sum(file.stat().st_size for file in tmp_path.iterdir()) <= limit


def test_no_more_is_restored_from_disk_once_half_of_the_cells_are_taken(smollm2: Path, tmp_path: Path) -> None:
    ids = long_prompt(smollm2, 300).ids
    driven = keeping(smollm2, "disk", kv_dir=tmp_path, context_length=256)
    for number, at in enumerate((0, 101, 203)):
        first_turn(driven, Tokens(ids[at : at + 80]), number)
    driven.stopped(Stop())
    again = keeping(smollm2, "disk", kv_dir=tmp_path, context_length=256)
    found = []
    for number, at in enumerate((203, 101, 0)):
        again.answer(Tokens(ids[at : at + 81]), number=number, max_tokens=1)
        found.append(again.finished(number).usage.cached_tokens)
    assert found == [80, 80, 0]
    again.stopped(Stop())


def test_a_folder_that_cannot_be_used_costs_a_log_line(
    smollm2: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    driven = keeping(smollm2, "disk", kv_dir=file)
    first_turn(driven, prompts(smollm2)[0])
    assert driven.stopped(Stop()) == Stopped(None)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
