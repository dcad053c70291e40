"""A day of a cluster on paper, small."""

from __future__ import annotations

from support.cluster_day.day import DaySettings, play_day


def test_planned_models_are_loaded_where_their_requests_go() -> None:
    settings = DaySettings(nodes=20, models=100, requests_per_s=30.0, sampled=100, duration_s=4 * 3600.0)
    planned, at_random = play_day(1, settings), play_day(1, settings, routes=False)
    assert planned.hits > 0.85 * planned.requests
    assert at_random.hits < 0.5 * at_random.requests
    # With the allowance of a ten minutes' plan.
    assert max(planned.planned_loads) <= settings.loads_per_hour / 6
