"""Engines on the same files hold them once."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.engine.loading.weights import WeightsKey, WeightsPool
from modelyard.protocol.requests import Stop
from support.engine_driver import Driven, engine

PROMPT = "The sea is a vast and"
# Layers, K and V, heads times their width, 16 bits.
CELL_BYTES = {"smollm2-135m-instruct-q4_1": 30 * 2 * 3 * 64 * 2, "gemma-3-270m-q4_k_m": 18 * 2 * 1 * 256 * 2}


@pytest.fixture(params=["smollm2", pytest.param("gemma3", marks=pytest.mark.long)])
def path(request: pytest.FixtureRequest, drawn_weights: dict[str, Path]) -> Path:
    return drawn_weights[request.param]


def resident_bytes() -> int:
    """Source: Linux, Documentation/filesystems/proc.rst, status: in KiB. Pages that are mapped twice count twice."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def test_a_second_engine_takes_no_second_copy_and_either_can_go_first(path: Path) -> None:
    pool, key = WeightsPool(), WeightsKey.of([path])
    first = engine(path, pool=pool, context_length=256)
    expected = first.answer(PROMPT, max_tokens=24)
    before = resident_bytes()
    second = engine(path, pool=pool, context_length=256)
    assert second.answer(PROMPT, max_tokens=24) == expected
    assert pool.users(key) == 2
    assert resident_bytes() - before < path.stat().st_size / 2

    profiles = [driven.loaded() for driven in (first, second)]
    assert len({profile.weights_key for profile in profiles}) == 1
    assert len({profile.weights_bytes for profile in profiles}) == 1

    first.stopped(Stop())
    assert pool.users(key) == 1
    assert second.answer(PROMPT, number=1, max_tokens=24) == expected
    second.stopped(Stop())
    assert pool.users(key) == 0


def test_engines_that_share_weights_answer_at_the_same_time(path: Path) -> None:
    """Started together too: one loads, the other waits for it."""
    pool = WeightsPool()
    both = [Driven(path, pool=pool, context_length=256) for _ in range(2)]
    for driven in both:
        driven.submit(0, PROMPT)
    for driven in both:
        driven.finished()
    assert pool.users(WeightsKey.of([path])) == 2
    assert both[0].texts == both[1].texts
    for driven in both:
        driven.stopped(Stop())


def test_an_engine_without_a_pool_has_weights_of_its_own(drawn_weights: dict[str, Path]) -> None:
    both = [engine(drawn_weights["smollm2"], context_length=256) for _ in range(2)]
    both[0].stopped(Stop())
    assert both[1].answer(PROMPT, max_tokens=4)
    both[1].stopped(Stop())


def test_a_profile_says_what_was_allocated(path: Path, weights: dict[str, Path]) -> None:
    # The demo model of that name, whose sizes are known.
    path = next(real for real in weights.values() if real.name == path.name)
    small, large = engine(path, context_length=256), engine(path, context_length=1024)
    file_bytes = path.stat().st_size
    for driven in (small, large):
        assert 0.8 * file_bytes < driven.loaded().weights_bytes < 1.5 * file_bytes
    more = large.loaded().context_bytes - small.loaded().context_bytes
    assert more == pytest.approx((1024 - 256) * CELL_BYTES[path.stem], rel=0.01)
    assert small.loaded().context_bytes > 256 * CELL_BYTES[path.stem]
    for driven in (small, large):
        driven.stopped(Stop())
