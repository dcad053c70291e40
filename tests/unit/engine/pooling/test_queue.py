"""Which inputs share a batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.pooling.queue import BatchedInput, EmbedQueue, Job
from modelyard.protocol.values import SequenceId


def job(number: int, *sizes: int, priority: int = 0) -> Job:
    """A request whose inputs have so many tokens."""
    return Job(SequenceId(number), [[7] * size for size in sizes], priority, np.zeros((len(sizes), 2), np.float32))


def queue(*jobs: Job, batch_tokens: int = 10, slots: int = 4) -> EmbedQueue:
    made = EmbedQueue(batch_tokens, slots)
    for one in jobs:
        made.add(one)
    return made


def places(batch: list[BatchedInput]) -> list[tuple[int, int]]:
    return [(place.job.request, place.index) for place in batch]


def compute(line: EmbedQueue, batch: list[BatchedInput]) -> list[int]:
    """The requests that are complete with a batch; a vector says whose it is."""
    vectors = np.array([[place.job.request, place.index] for place in batch], np.float32)
    return [done.request for done in line.complete(batch, vectors)]


def test_requests_share_a_batch() -> None:
    line = queue(job(1, 3), job(2, 3, 3))
    batch = line.pack()
    assert places(batch) == [(1, 0), (2, 0), (2, 1)]
    assert compute(line, batch) == [1, 2]
    assert not line


def test_a_batch_holds_so_many_tokens() -> None:
    line = queue(job(1, 6), job(2, 6), job(3, 4))
    assert places(line.pack()) == [(1, 0), (3, 0)]
    assert places(line.pack()) == [(2, 0)]


def test_a_batch_holds_so_many_inputs() -> None:
    line = queue(job(1, 1, 1, 1), job(2, 1, 1), slots=4)
    assert places(line.pack()) == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert places(line.pack()) == [(1, 2)]


def test_an_input_that_is_longer_than_a_batch_goes_alone() -> None:
    line = queue(job(1, 25), job(2, 1))
    assert places(line.pack()) == [(1, 0)]
    assert places(line.pack()) == [(2, 0)]


def test_a_short_request_does_not_wait_for_all_inputs_of_a_long_one() -> None:
    line = queue(job(1, *[10] * 5))
    assert places(line.pack()) == [(1, 0)]
    line.add(job(2, 10))
    # Whoever had a place goes behind whoever had none.
    assert [places(line.pack()) for _ in range(3)] == [[(1, 1)], [(2, 0)], [(1, 2)]]


def test_the_urgent_go_first() -> None:
    line = queue(job(1, 10), job(2, 10, priority=5), job(3, 10, priority=5))
    assert [places(line.pack()) for _ in range(3)] == [[(2, 0)], [(3, 0)], [(1, 0)]]


def test_a_request_is_complete_with_its_last_vector() -> None:
    both = job(1, 8, 8)
    line = queue(both)
    assert compute(line, line.pack()) == []
    assert compute(line, line.pack()) == [1]
    assert both.vectors.tolist() == [[1, 0], [1, 1]]
    assert both.tokens == 16


def test_a_request_that_was_removed_is_not_computed_further() -> None:
    line = queue(job(1, 8, 8), job(2, 2))
    batch = line.pack()
    assert line.remove(SequenceId(1))
    assert not line.remove(SequenceId(1))
    assert compute(line, batch) == [2]
    assert not line
    assert line.pack() == []


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(-1, 1)), max_size=8),
    st.integers(1, 5),
)
def test_every_input_is_computed_once_and_every_batch_has_room(
    requests: list[tuple[list[int], int]], slots: int
) -> None:
    jobs = [job(number, *sizes, priority=priority) for number, (sizes, priority) in enumerate(requests)]
    line = queue(*jobs, slots=slots)
    seen: list[tuple[int, int]] = []
    complete: list[int] = []
    while line:
        batch = line.pack()
        assert 1 <= len(batch) <= slots
        assert sum(len(place.tokens) for place in batch) <= 10 or len(batch) == 1
        seen += places(batch)
        complete += compute(line, batch)
    assert sorted(seen) == [(one.request, index) for one in jobs for index in range(len(one.inputs))]
    assert sorted(complete) == [one.request for one in jobs]
    for one in jobs:
        assert one.vectors.tolist() == [[one.request, index] for index in range(len(one.inputs))]


def test_a_request_that_is_to_be_alone_shares_no_batch() -> None:
    apart = job(2, 3, 3, 8)
    apart.alone = True
    line = queue(job(1, 3, 3), apart, job(3, 3, priority=9))
    batches = []
    while line:
        batch = line.pack()
        batches.append(places(batch))
        compute(line, batch)
    assert batches == [[(2, 0), (2, 1)], [(2, 2)], [(3, 0), (1, 0), (1, 1)]]
