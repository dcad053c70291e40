"""What was in memory when, and the reasons that are given for it."""

from __future__ import annotations

from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, Residency
from modelyard.yard.stats.residency_history import ResidencyHistory


def at(now: float, load_state: LoadState) -> Residency:
    """A model whose whole load takes 90 s, at a time."""
    state = Residency.of({"a": ModelPolicy("a", 1)}, 1 << 30)
    return state._replace(now=now, models={"a": state.models["a"]._replace(load_state=load_state, load_s=90.0)})


def test_a_load_took_as_long_as_the_model_was_loading_also_where_its_weights_were_parked() -> None:
    history = ResidencyHistory()
    parked, loading, loaded = at(0.0, LoadState.PARKED), at(10.0, LoadState.LOADING), at(12.0, LoadState.LOADED)
    history.record(parked, loading, {"a"}, ())
    history.record(loading, loaded, {"a"}, ())
    assert [(each.began, each.reason) for each in history.intervals(12.0, 60.0)] == [
        (10.0, "a load was asked for"),
        (12.0, "its load took 2.0 s"),
    ]
