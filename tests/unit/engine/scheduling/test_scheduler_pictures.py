"""Pictures in the scheduler: fed whole, by themselves, and not before others who decode had a step."""

from __future__ import annotations

from modelyard.engine.kv.cache import KvCache, SaveCheckpoint, ShareCells, TrimCells
from modelyard.engine.kv.checkpoints import CheckpointStore
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.kv.prefix import place
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.protocol.prompts import Image
from modelyard.protocol.values import SequenceId


def picture(seed: int = 0, length: int = 6, positions: int | None = None) -> ImageSpan:
    return ImageSpan(Image(1, 1, bytes([seed, 0, 0])), 0, length, length if positions is None else positions)


def scheduler(capacity: int = 64, **options: int) -> Scheduler:
    return Scheduler(
        KvCache(capacity, 4, has_images=True),
        max_running=3,
        batch_tokens=8,
        prefill_beside_decode=4,
        can_trim=True,
        cost=StepCost(),
    )


def sequence(number: int, *parts: list[int] | ImageSpan) -> Sequence:
    tokens: list[int] = []
    pictures = {}
    for part in parts:
        if isinstance(part, ImageSpan):
            pictures[part.placeholders[0]] = part
        tokens += part.placeholders if isinstance(part, ImageSpan) else part
    return Sequence(SequenceId(number), number, tokens, 0, pictures)


def shape(feeds: list[ScheduledChunk]) -> list[tuple[int, int, bool]]:
    """Whose, how many tokens, whether a picture."""
    return [(feed.sequence.id, len(feed.tokens), feed.image is not None) for feed in feeds]


def run(engine: Scheduler, steps: int) -> list[list[tuple[int, int, bool]]]:
    """Shapes of so many steps; each answer goes on."""
    shapes = []
    for _ in range(steps):
        feeds = engine.schedule()
        shapes.append(shape(feeds))
        for feed in feeds:
            if feed.outputs:
                feed.sequence.tokens.append(1000 + len(feed.sequence.tokens))
    return shapes


def test_text_and_pictures_are_fed_in_turn_and_never_together() -> None:
    engine = scheduler()
    engine.add(sequence(0, [1, 2, 3], picture(0), [4], picture(1), [5, 6]))
    assert run(engine, 6) == [
        [(0, 3, False)],
        [(0, 6, True)],
        [(0, 1, False)],
        [(0, 6, True)],
        [(0, 1, False)],
        [(0, 1, False)],
    ]


def test_a_picture_longer_than_a_step_is_fed_whole() -> None:
    engine = scheduler()
    engine.add(sequence(0, picture(length=20), [5, 6]))
    assert run(engine, 2) == [[(0, 20, True)], [(0, 1, False)]]


def test_streams_have_every_other_step() -> None:
    engine = scheduler()
    engine.add(sequence(0, [1]))
    run(engine, 1)
    engine.add(sequence(1, picture(0), picture(1), picture(2), [9, 9]))
    shapes = run(engine, 7)
    assert shapes[:7] == [
        [(0, 1, False)],
        [(1, 6, True)],
        [(0, 1, False)],
        [(1, 6, True)],
        [(0, 1, False)],
        [(1, 6, True)],
        [(0, 1, False), (1, 1, False)],
    ]


def test_a_picture_without_room_waits_and_the_youngest_gives_way() -> None:
    engine = scheduler(capacity=16)
    engine.add(sequence(0, [1, 2], picture(0), [3]))
    engine.add(sequence(1, [5, 6], picture(1), [7]))
    for _ in range(20):
        for feed in engine.schedule():
            if feed.outputs and feed.sequence.answer_length < 3:
                feed.sequence.tokens.append(1)
            elif feed.outputs:
                engine.remove(feed.sequence.id)
        assert sum(len(slot.tokens) for slot in engine.cache.slots) <= 16
        if engine.is_idle:
            break
    assert engine.is_idle


def test_a_picture_alone_at_the_beginning_is_no_reason_to_give_way() -> None:
    engine = scheduler()
    engine.add(sequence(0, picture(0), [1]))
    assert run(engine, 2) == [[(0, 6, True)], [(0, 1, False)]]
    assert engine.preemptions == 0


def test_a_prefix_is_reused_up_to_the_end_of_a_picture_never_inside() -> None:
    cache = KvCache(64, 2, has_images=True)
    shown = picture(0)
    accepted = [1, *shown.placeholders, 2, 3]
    cache.hold(accepted, 0)
    same = place([1, *shown.placeholders, 9, 9], cache.slots, can_trim=True)
    assert same is not None
    assert same.reused == 7
    # At least one token is computed: of a prompt that ends with the picture, all of it.
    ends = place([1, *shown.placeholders], cache.slots, can_trim=True)
    assert ends is not None
    assert ends.reused == 1
    other = place([1, *picture(1).placeholders, 2], cache.slots, can_trim=True)
    assert other is not None
    assert other.reused == 1


def test_what_llama_is_told_is_in_positions() -> None:
    cache = KvCache(64, 2, has_images=True)
    shown = picture(0, length=6, positions=2)
    slot = cache.hold([1, *shown.placeholders, 2, 3], 0)
    assert slot is not None
    cache.operations.clear()
    other = next(free for free in cache.slots if free is not slot)
    cache.share(slot, other, 7)
    cache.trim(slot, 8)
    assert cache.operations == [ShareCells(slot.index, other.index, 3), TrimCells(slot.index, 4)]
    placed = sequence(0, [1], shown, [2, 3])
    assert [placed.position_at(index) for index in (0, 1, 7, 8)] == [0, 1, 3, 4]


def test_a_checkpoint_within_a_picture_is_left_out_because_that_is_computed_whole() -> None:
    engine = Scheduler(
        KvCache(400, 4, has_images=True, checkpoints=CheckpointStore(1000)),
        max_running=3,
        batch_tokens=8,
        prefill_beside_decode=4,
        can_trim=False,
        cost=StepCost(),
    )
    one = sequence(0, [1, 2, 3], picture(length=300), [5, 6])
    engine.add(one)
    assert not engine.save_checkpoints(engine.schedule())
    one.checkpoints_at = [5, 303]
    assert engine.save_checkpoints(engine.schedule())
    saved = [operation.tokens for operation in engine.cache.operations if isinstance(operation, SaveCheckpoint)]
    assert [len(tokens) for tokens in saved] == [303]
    assert one.checkpoints_at == []
