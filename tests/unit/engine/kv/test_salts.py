"""What was computed for requests of one salt is of no use to those of another, nor is it pushed out by them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.generation.admission import check_context
from modelyard.engine.input.prompt_encoder import PreparedPrompt
from modelyard.engine.kv.cache import KvCache, Slot
from modelyard.engine.kv.disk import KvDiskCache, Unsaved
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.kv.prefix import place
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.llama import Context, Projector
from modelyard.engine.loading import vision
from modelyard.engine.loading.vision import Vision
from modelyard.engine.speculative.draft_model import DraftModel, DraftProposer
from modelyard.errors import ContextNotPermitted
from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.prompts import Audio, Image, Text, salted
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import SequenceId
from modelyard.system.owner_shares import amounts_of, first_to_go, may_take
from support.naive_llama import Llama
from unit.engine.kv.test_offload import TOKEN_BYTES, Yard
from unit.engine.loading.test_vision import Encoder

A, B = "a" * 32, "b" * 32
PROMPT = list(range(100))


def sequence(number: int, prompt: list[int], salt: str) -> Sequence:
    return Sequence(SequenceId(number), number, prompt, salt=salt)


@pytest.mark.parametrize("can_trim", [True, False])
def test_a_prefix_is_placed_upon_by_its_own_salt_alone(can_trim: bool) -> None:
    held = Slot(0, list(PROMPT), list(range(100)), 100, salt=A)
    slots = [held, Slot(1)]
    for salt, reused in ((A, 100), (B, 0), ("", 0)):
        placed = place([*PROMPT, 7], slots, can_trim=can_trim, salt=salt)
        assert placed is not None
        assert (placed.donor, placed.reused) == (held if reused else None, reused)


def test_a_request_finds_in_the_cache_what_its_own_salt_has_computed_and_nothing_else() -> None:
    llama = Llama(capacity=300, slots=6)
    prompt = list(range(60))
    found = []
    for number, salt in enumerate((A, B, A, B, "")):
        asked = llama.add(sequence(number, [*prompt, 900 + number], salt), answer=1)
        llama.run()
        found.append(asked.cached_tokens)
    assert found == [0, 0, 60, 60, 0]


def test_nobody_waits_for_what_another_salt_is_computing() -> None:
    """Else both would be answered at the same time, and that tells."""
    llama = Llama(capacity=300, slots=6)
    prompt = list(range(60))
    llama.add(sequence(0, prompt, A), answer=20)
    while llama.scheduler.running == [] or llama.scheduler.running[0].pending > 4:
        llama.step()
    stranger = llama.add(sequence(1, [*prompt, 901], B))
    own = llama.add(sequence(2, [*prompt, 902], A))
    llama.step()
    assert stranger.slot is not None
    assert own.slot is None
    llama.run()
    assert (stranger.cached_tokens, own.cached_tokens) == (0, 60)


def test_prefixes_of_one_salt_are_given_up_before_the_few_of_another() -> None:
    cache = KvCache(1000, 6)
    cache.hold([1] * 10, 0, salt=A)
    for first in range(2, 30):
        cache.hold([first] * 10, 0, salt=B)
    held = Counter(slot.salt for slot in cache.slots if slot.tokens)
    assert held == {A: 1, B: 5}


def test_where_cells_are_short_the_salt_that_holds_most_of_them_gives_way() -> None:
    cache = KvCache(100, 6)
    cache.hold([1] * 30, 0, salt=A)
    cache.hold([2] * 20, 0, salt=B)
    cache.hold([3] * 40, 0, salt=B)
    assert cache.make_room(30)
    assert sorted((slot.salt, len(slot.tokens)) for slot in cache.slots if slot.tokens) == [(A, 30), (B, 40)]


def test_a_parked_prefix_comes_back_for_its_own_salt_alone() -> None:
    yard = Yard()
    yard.idle(0, range(50)).salt = A
    yard.step()
    assert [prompt.salt for prompt in yard.moves.parked] == [A]
    for salt, is_back in ((B, False), ("", False), (A, True)):
        yard.moves.prepare_step([sequence(7, [*range(50), 900], salt)])
        assert any(slot.tokens for slot in yard.cache.slots) == is_back
        assert yard.cache.slots[0].salt == A


def test_a_salt_that_parks_much_pushes_out_its_own() -> None:
    yard = Yard(max_prefixes=3)
    yard.idle(0, range(1000, 1040)).salt = A
    yard.step()
    for first in range(0, 500, 50):
        yard.idle(0, range(first, first + 40)).salt = B
        yard.step()
    assert [(prompt.salt, prompt.tokens[0]) for prompt in yard.moves.parked] == [(A, 1000), (B, 400), (B, 450)]


def test_prefixes_that_cannot_be_parked_leave_places_for_those_that_are() -> None:
    """They share their cells, so that to park one would gain nothing."""
    yard = Yard(slots=6, max_prefixes=4)
    first = yard.computed(0, range(100))
    first.salt = B
    for at in range(1, 4):
        yard.cache.share(first, yard.cache.slots[at], 100)
        yard.cells.lengths[at] = 100
        yard.cache.make_idle(yard.cache.slots[at])
    yard.cache.make_idle(first)
    yard.idle(4, range(500, 540)).salt = A
    yard.step()
    assert [prompt.salt for prompt in yard.moves.parked] == [A]
    assert [slot.salt for slot in yard.cache.slots if slot.tokens] == [B] * 3


def test_memory_for_parked_prefixes_is_shared_too() -> None:
    yard = Yard(parked_bytes=200 * TOKEN_BYTES)
    for at, first in enumerate((0, 50, 100)):
        yard.idle(at, range(first, first + 50)).salt = B
        yard.step()
    yard.idle(3, range(500, 580)).salt = A
    yard.step()
    assert [(prompt.salt, prompt.tokens[0]) for prompt in yard.moves.parked] == [(B, 50), (B, 100), (A, 500)]
    yard.idle(0, range(200, 280)).salt = B
    yard.step()
    assert yard.cache.slots[0].stays


def kept(first: int, salt: str) -> Unsaved:
    return Unsaved(tuple(range(first, first + 5)), lambda: np.full(1000, first % 251, np.uint8), salt)


def test_a_kept_prompt_is_found_with_its_salt_after_a_restart(tmp_path: Path) -> None:
    KvDiskCache(tmp_path, "m", 2**30).save([kept(7, A), kept(7, B), kept(7, "")])
    found = list(KvDiskCache(tmp_path, "m", 2**30).load(10**6, 10))
    assert sorted(prompt.salt for prompt in found) == ["", A, B]
    assert {prompt.tokens for prompt in found} == {(7, 8, 9, 10, 11)}


@pytest.mark.parametrize("other", [f"-{B}-", "-"])
def test_a_kept_prompt_whose_file_is_renamed_to_another_salt_is_not_used(tmp_path: Path, other: str) -> None:
    store = KvDiskCache(tmp_path, "m", 2**30)
    store.save([kept(7, A)])
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / file.name.replace(f"-{A}-", other))
    assert list(store.load(10**6, 10)) == []


def test_the_folder_of_kept_prompts_is_shared_by_salts(tmp_path: Path) -> None:
    store = KvDiskCache(tmp_path, "m", 2**30)
    store.save([kept(1, A)])
    size = next(tmp_path.iterdir()).stat().st_size
    small = KvDiskCache(tmp_path, "m", 4 * size)
    for first in range(10, 100, 10):
        small.save([kept(first, B)])
    # One of each salt before a second of any, the last used last.
    assert [prompt.salt for prompt in small.load(10**6, 2)] == [A, B]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_salt_that_could_not_stand_in_a_name_keeps_nothing(tmp_path: Path) -> None:
    store = KvDiskCache(tmp_path, "m", 2**30)
    store.save([kept(1, "../a"), kept(2, "key-1")])
    assert list(tmp_path.iterdir()) == []


IMAGE = Image(2, 2, bytes(range(12)))
CLIP = Audio(bytes(16), 16000)


@pytest.mark.parametrize("medium", [IMAGE, CLIP])
def test_images_and_sound_of_two_salts_are_different_ones(medium: Image | Audio) -> None:
    one, other = salted(medium, A), salted(medium, B)
    assert len({medium.digest, one.digest, other.digest}) == 3
    assert salted(medium, A).digest == one.digest
    assert salted(medium, "") is medium


def show(sees: Vision, medium: Image | Audio) -> None:
    for part in sees.parts(medium):
        if isinstance(part, ImageSpan):
            sees.embeddings(part)


def test_a_picture_of_another_salt_is_encoded_again() -> None:
    sees = Vision(cast(Projector, Encoder()), 0, 512)
    for salt in (A, B, A):
        for medium in PreparedPrompt("messages", ([1], IMAGE, [2])).salted(salt).parts:
            if isinstance(medium, Image):
                show(sees, medium)
    assert (sees.encoded, sees.reused) == (2, 1)


def test_pictures_of_one_salt_do_not_push_out_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    sees = Vision(cast(Projector, Encoder()), 0, 512)

    show(sees, salted(Image(2, 2, bytes([0] * 12)), A))
    size = sum(size for _, size in sees._held())
    monkeypatch.setattr(vision, "KEPT_EMBEDDINGS_BYTES", 3 * size)
    for seed in range(1, 9):
        show(sees, salted(Image(2, 2, bytes([seed] * 12)), B))
    assert amounts_of(sees._held()) == {A: size, B: 2 * size}


class Drafts:
    """A draft model's context that only counts what it is fed."""

    length = 1000

    def __init__(self) -> None:
        self.fed: list[int] = []

    def trim(self, slot: int, length: int) -> None: ...

    def decode(self, batch: object, length: int) -> int:
        self.fed.append(length)
        return Context.DECODED

    def logits(self, rows: int) -> np.ndarray:
        return np.eye(rows, 8, dtype=np.float32)

    def failure(self) -> str:
        return ""


def test_a_draft_model_reads_again_what_it_has_read_for_another_salt() -> None:
    context = Drafts()
    drafter = DraftModel(cast(Context, context), 2, 0.01)
    for number, salt in enumerate((A, B, A)):
        asked = sequence(number, PROMPT[:60], salt)
        asked.proposer = DraftProposer(None)
        context.fed.clear()
        drafter.draft([asked], lambda _tokens: 1.0)
        assert context.fed[0] == (1 if number == 2 else 60)
        drafter.release(asked.id)


def test_a_suspended_sequence_takes_the_salt_of_its_prompt_along() -> None:
    cache = KvCache(100, 2)
    prompt = KeptPrompt((1, 2, 3), np.zeros(3, np.uint8), A)
    slot = cache.hold(prompt.tokens, 0, SequenceId(1), prompt.salt)
    assert slot is not None
    assert slot.salt == A


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "is_permitted"),
    [(99, None, True), (100, None, False), (90, 10, True), (90, 11, False), (200, 1, False)],
)
def test_a_prompt_and_its_answer_have_no_more_tokens_than_their_key_may(
    prompt_tokens: int, max_tokens: int | None, is_permitted: bool
) -> None:
    request = Submit(SequenceId(1), Text("x"), max_tokens=max_tokens, max_context=100)
    if is_permitted:
        check_context(request, prompt_tokens)
        return
    with pytest.raises(ContextNotPermitted, match=re.escape("may use 100 for a prompt and its answer")):
        check_context(request, prompt_tokens)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=40), st.integers(1, 60))
def test_whoever_holds_less_than_an_equal_share_loses_nothing(held: list[tuple[str, int]], room: int) -> None:
    before = amounts_of(held)
    left = list(held)
    while sum(size for _, size in left) > room:
        del left[first_to_go(left)]
    owners = len(before)
    for owner, amount in before.items():
        # The last that was given up may have been larger than what was too much.
        assert amounts_of(left)[owner] == amount or amount > room // owners - 9


@given(st.integers(1, 1000), st.lists(st.integers(0, 5), max_size=200))
def test_there_is_a_place_for_who_comes_late_and_none_takes_more_than_half(places: int, arrivals: list[int]) -> None:
    taken: Counter[int] = Counter()
    for owner in arrivals:
        if may_take(taken[owner], taken.total(), places):
            taken[owner] += 1
    assert taken.total() <= places
    assert all(count <= (places + 1) // 2 for count in taken.values())
    if places >= 2**7:
        assert may_take(0, taken.total(), places)
