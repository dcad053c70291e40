"""Who waits for whom, of engines that share a device."""

from __future__ import annotations

import threading
import time
from itertools import cycle, islice

import pytest

from modelyard.engine.scheduling import fair_share
from modelyard.engine.scheduling.fair_share import LEAD_S, RECENT_S, Device, DeviceShare, is_busy, waits

WAIT_S = 20.0


def seat(*, had: float = 0.0, weight: float = 1.0, priority: int = 0, last_step: float = 100.0) -> DeviceShare:
    made = DeviceShare(weight, priority)
    made.virtual_time, made.last_step = had, last_step
    return made


NOW = 100.0


def test_an_engine_is_busy_while_it_computes_and_shortly_after() -> None:
    assert is_busy(seat(last_step=NOW), NOW + RECENT_S / 2)
    assert not is_busy(seat(last_step=NOW), NOW + RECENT_S)
    computing = seat(last_step=0.0)
    computing.is_active = True
    assert is_busy(computing, NOW)


def test_the_less_urgent_waits_while_the_more_urgent_is_busy() -> None:
    low, high = seat(), seat(priority=1, had=50.0)
    assert waits(low, (low, high), NOW)
    assert not waits(high, (low, high), NOW)
    assert not waits(low, (low, high), NOW + 1)


def test_who_is_ahead_of_its_part_waits_until_the_others_have_had_theirs() -> None:
    ahead, behind = seat(had=3 + 2 * LEAD_S), seat(had=3)
    assert waits(ahead, (ahead, behind), NOW)
    assert not waits(behind, (ahead, behind), NOW)
    behind.virtual_time += 1.5 * LEAD_S
    assert not waits(ahead, (ahead, behind), NOW)


def test_nobody_waits_for_one_that_has_nothing_to_do_or_is_less_urgent() -> None:
    ahead = seat(had=5.0)
    assert not waits(ahead, (ahead, seat(last_step=0.0), seat(priority=-1)), NOW)
    assert not waits(ahead, (ahead,), NOW)


@pytest.mark.parametrize("weight", [1.0, 2.0, 5.0])
def test_over_time_each_has_its_part(weight: float) -> None:
    """Both compute at once where neither waits, a hundredth of a second a step."""
    heavy, light = seat(weight=weight), seat()
    both, computed = (heavy, light), {heavy: 0.0, light: 0.0}
    for _ in range(2000):
        going = [one for one in both if not waits(one, both, NOW)]
        assert going
        for one in going:
            one.virtual_time += 0.01 / one.weight
            computed[one] += 0.01
    assert computed[heavy] / computed[light] == pytest.approx(weight, rel=0.02)


def test_of_any_engines_one_may_always_go() -> None:
    for priorities in ((0, 0, 0), (1, 0, 0), (1, 2, 3)):
        seats = tuple(seat(had=had, priority=p) for had, p in zip((9.0, 4.0, 7.0), priorities, strict=True))
        assert not all(waits(one, seats, NOW) for one in seats)


def test_a_wait_has_an_end_though_a_more_urgent_engine_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_share, "MAX_WAIT_S", 0.1)
    device, high, low = Device(), DeviceShare(priority=1), DeviceShare()
    entered, leave = threading.Event(), threading.Event()

    def hang() -> None:
        with device.joined(high), device.step(high):
            entered.set()
            assert leave.wait(WAIT_S)

    with device.joined(low):
        thread = threading.Thread(target=hang, daemon=True)
        thread.start()
        assert entered.wait(WAIT_S)
        with device.step(low):
            pass
        assert high.is_active
        leave.set()
        thread.join(WAIT_S)


def test_who_comes_back_from_a_pause_has_missed_its_time() -> None:
    device, worked, paused = Device(), seat(had=40.0, last_step=time.monotonic(), weight=2.0), DeviceShare()
    worked.is_active = True
    with device.joined(worked), device.joined(paused), device.step(paused):
        assert paused.virtual_time == 40.0


def test_engines_of_equal_right_compute_at_the_same_time() -> None:
    device, seats = Device(), [DeviceShare(), DeviceShare()]
    meeting = threading.Barrier(2)

    def compute(own: DeviceShare) -> None:
        with device.joined(own), device.step(own):
            meeting.wait(WAIT_S)

    threads = [threading.Thread(target=compute, args=(own,), daemon=True) for own in seats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert not meeting.broken


def test_a_step_that_fails_counts_as_one() -> None:
    device, own, other = Device(), DeviceShare(), DeviceShare(weight=2.0)
    with device.joined(own), device.joined(other):
        for taker in islice(cycle((own, other)), 4):
            with pytest.raises(ValueError, match="llama"), device.step(taker):
                raise ValueError("llama")
    assert own.virtual_time > 0
    assert not own.is_active


def test_a_device_is_busy_while_some_engine_computes_and_shortly_after() -> None:
    device, seat = Device(), DeviceShare()
    with device.joined(seat):
        assert not device.is_busy
        with device.step(seat):
            pass
        assert device.is_busy
        seat.last_step -= 2 * RECENT_S
        assert not device.is_busy
    assert not device.is_busy
