"""What is counted of models, and how long each part of a request's way is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import EngineError
from modelyard.protocol.events import Cancelled, Failed, Finished
from modelyard.protocol.values import EngineStats, SequenceId, Usage
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.stats.counters import Counters, Histogram, ModelCounters

NUMBER = SequenceId(1)


@given(values=st.lists(st.floats(0, 10), max_size=50))
def test_a_histogram_counts_each_value_in_the_first_bound_that_holds_it(values: list[float]) -> None:
    histogram = Histogram((1.0, 5.0))
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [
        sum(value <= 1 for value in values),
        sum(1 < value <= 5 for value in values),
        sum(value > 5 for value in values),
    ]
    assert histogram.sum == pytest.approx(sum(values))


def test_gaps_are_counted_between_the_texts_of_one_answer() -> None:
    counters = ModelCounters()
    # One answer begins, two go on together, and one comes back after a pause.
    counters.record_tokens([0.0, 10.0, 10.0, 3.0], now=10.004)
    assert sum(counters.gap_s.counts) == 3
    assert counters.gap_s.sum == pytest.approx(2 * 0.004 + 7.004)


def test_the_ends_of_requests_are_counted_with_what_they_used() -> None:
    counters = ModelCounters()
    times = RequestTimings(arrived=1.0, granted=2.0, started=2.5, first=3.0, ended=4.0)
    counters.record_end(Finished(NUMBER, "stop", Usage(10, 5, 0)), times)
    counters.record_end(Cancelled(NUMBER, Usage(8, 2, 6)), times)
    counters.record_end(Cancelled(NUMBER), RequestTimings(arrived=1.0, ended=2.0))
    counters.record_end(Failed(NUMBER, EngineError("m", "x")), RequestTimings(arrived=1.0, ended=2.0))
    assert counters.requests == {"stop": 1, "cancelled": 2, "failed": 1}
    assert (counters.prompt_tokens, counters.cached_tokens, counters.completion_tokens, counters.prefix_hits) == (
        18,
        6,
        7,
        1,
    )
    assert (sum(counters.queue_s.counts), sum(counters.first_token_s.counts)) == (2, 2)


def test_preemptions_and_pictures_add_up_over_engines() -> None:
    counters = Counters()
    counters["a"].record_stats(EngineStats(1, 0, 100, 10, preemptions=2))
    counters["a"].engine_stats = None
    counters["a"].record_stats(EngineStats(1, 0, 100, 10, preemptions=1))
    assert counters["a"].preemptions == 3
    for _ in range(2):
        counters["a"].record_stats(EngineStats(1, 0, 100, 10, 0, pictures_encoded=2, pictures_reused=5))
    assert (counters["a"].pictures_encoded, counters["a"].pictures_reused) == (4, 10)
    assert set(counters) == {"a"}


def test_the_parts_of_the_way_add_up_to_the_whole() -> None:
    times = RequestTimings(arrived=100.0)
    assert (times.queue_s, times.prefill_s, times.decode_s, times.first_token_s) == (None, None, None, None)
    # Its model's load had begun before it came.
    times.grant(now=104.0, load_began=99.0, loaded_at=103.5)
    assert times.load_s == 3.5
    assert times.queue_s == 0.5
    times.started = 105.0
    times.first, times.ended = 107.0, 111.0
    assert (times.queue_s, times.load_s, times.prefill_s, times.decode_s) == (1.5, 3.5, 2.0, 4.0)
    assert times.first_token_s == 7.0


def test_an_answer_that_was_suspended_is_not_slower_for_it() -> None:
    times = RequestTimings(arrived=100.0)
    times.grant(now=101.0, load_began=0.0, loaded_at=0.0)
    times.start(102.0)
    times.first = times.last = 104.0
    times.pause(105.0)
    times.grant(now=135.0, load_began=106.0, loaded_at=135.0)
    times.start(136.0)
    times.end(139.0)
    assert (times.prefill_s, times.decode_s, times.waited_s) == (2.0, 5.0, 32.0)


def test_a_prompt_that_was_suspended_waits_until_it_goes_on() -> None:
    times = RequestTimings(arrived=100.0)
    times.grant(now=101.0, load_began=0.0, loaded_at=0.0)
    times.start(102.0)
    times.pause(103.0)
    times.grant(now=110.0, load_began=0.0, loaded_at=0.0)
    times.first = times.last = 111.0
    times.end(113.0)
    assert (times.prefill_s, times.decode_s, times.waited_s) == (1.0, 2.0, 10.0)


def test_an_empty_answer_took_as_long_as_its_prompt() -> None:
    times = RequestTimings(arrived=100.0)
    assert times.waited_s == 0.0
    times.grant(now=101.0, load_began=0.0, loaded_at=0.0)
    times.end(104.0)
    assert (times.prefill_s, times.decode_s, times.waited_s) == (3.0, None, 1.0)


def test_a_load_before_it_came_and_a_second_grant_are_not_its_own() -> None:
    times = RequestTimings(arrived=100.0)
    times.grant(now=100.1, load_began=50.0, loaded_at=60.0)
    assert times.load_s == 0.0
    times.grant(now=200.0, load_began=150.0, loaded_at=199.0)
    assert (times.granted, times.load_s) == (100.1, 0.0)
