"""The residency under traffic with costs, against other policies; ``make simulate DAYS=10`` plays whole days."""

from __future__ import annotations

import pytest

from support.costs import Machine, Traffic, day_of
from support.costs.engine import Engine, Job
from support.costs.machine import GIB, SimulatedModel
from support.costs.report import BY_BYTES, BY_COUNT, ORACLE, SERVED, rows_of, table_of
from support.costs.sharing import Shared

HOUR = Traffic(models=60, duration_s=1200.0, requests_per_s=1.2)
SMALL = Machine(nodes=4, node_bytes=48 * GIB)


@pytest.fixture(scope="module")
def rows():
    return rows_of(0, HOUR, SMALL, (BY_COUNT, BY_BYTES, SERVED, ORACLE))


def test_the_residency_comes_near_to_an_oracle_that_knows_all_requests(rows):
    served, oracle = rows[SERVED], rows[ORACLE]
    assert served.goodput > 0.9 * oracle.goodput
    assert served.tokens_per_s > 0.9 * oracle.tokens_per_s


def test_the_residency_serves_more_in_time_than_least_recently_used_models_do(rows):
    served = rows[SERVED]
    assert served.goodput > 2.0 * rows[BY_COUNT].goodput
    assert served.goodput > 1.03 * rows[BY_BYTES].goodput
    assert served.p90_s < rows[BY_BYTES].p90_s


def test_the_table_has_a_line_for_each_policy(rows):
    assert table_of([rows, rows]).row_count == 4


def test_a_day_is_a_function_of_its_seed_and_most_requests_are_for_few_models():
    day = day_of(1, HOUR)
    assert day == day_of(1, HOUR)
    assert day != day_of(2, HOUR)
    requests = sorted((sum(each.model == name for each in day.arrivals) for name in day.models), reverse=True)
    assert sum(requests[:12]) > len(day.arrivals) / 2
    assert [each.at for each in day.arrivals] == sorted(each.at for each in day.arrivals)
    assert all(1.0 <= model.billions <= 70.0 for model in day.models.values())


def test_jobs_that_are_more_than_workers_share_them():
    shared = Shared(workers=2)
    shared.jobs = 4
    shared.advance(10.0)
    assert shared.done_s == 5.0
    assert shared.time_of(6.0) == 12.0
    shared.jobs = 1
    assert shared.time_of(6.0) == 11.0


def test_an_engine_computes_prompts_in_turn_and_answers_together():
    model, machine = SimulatedModel("a", 8.0, 1e9), Machine()
    alone_s, together_s = model.step_s(machine, 1), model.step_s(machine, 2)
    prompt_s = model.prefill_s(machine, 1000)
    engine = Engine(model, machine, 0.0)
    engine.add(Job(1, 1000, 100))
    assert engine.next_at() == pytest.approx(prompt_s)
    assert [job.request for job in engine.advance(prompt_s)[0]] == [1]
    assert engine.next_at() == pytest.approx(prompt_s + 100 * alone_s)
    engine.add(Job(2, 0, 100))
    assert together_s < 2 * alone_s
    assert engine.next_at() == pytest.approx(prompt_s + 100 * together_s)
    # A prompt has half of the time.
    engine.add(Job(3, 1000, 100))
    assert engine.next_at() == pytest.approx(prompt_s + min(2 * prompt_s, 200 * together_s))


def test_a_suspended_request_goes_on_with_what_is_left_of_its_answer():
    model, machine = SimulatedModel("a", 8.0, 1e9), Machine()
    engine = Engine(model, machine, 0.0)
    engine.add(Job(1, 0, 100))
    engine.advance(40 * model.step_s(machine, 1))
    (job,) = engine.take_all()
    assert job.answer == pytest.approx(60)
    assert not engine.is_busy
