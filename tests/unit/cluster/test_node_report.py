"""What a node reports of its models."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.cluster.node_report import (
    MAX_PLANS,
    MIN_LEFT_S,
    MIN_SERVICE_S,
    ModelReport,
    NodeReport,
    mean_service_s,
    report_of,
)
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.residency.policy import ModelPolicy, WaitPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import RequestId

NOW = 50.0


def residency(budget: int = 100, **models: ModelState) -> Residency:
    named = {name: each._replace(policy=ModelPolicy(ModelId(name), 8)) for name, each in models.items()}
    return Residency(named, budget, {}, WaitPolicy(), now=NOW, active=frozenset(named))


def model(load_state: LoadState, weights: int = 30, **fields: Any) -> ModelState:
    footprint = Footprint(f"file of {weights}", weights, 10)
    made = ModelState(ModelPolicy(ModelId(""), 8), load_state, footprint, (footprint,), load_s=4.0, loaded_at=0.0)
    return made._replace(**fields)


def test_a_loaded_model_is_ready_and_says_what_it_does() -> None:
    state = residency(a=model(LoadState.LOADED, leases={RequestId(1): 0, RequestId(2): 0}))
    report = report_of("n", state, NOW, 32, 2.0)
    assert report.models == {"a": ModelReport(0.0, running=2, size_bytes=40)}
    assert (report.budget_bytes, report.free_bytes) == (100, 60)
    assert NodeReport.of_fields(report.fields()) == report


def test_of_a_load_that_runs_the_rest_is_reported_and_never_that_it_is_over() -> None:
    state = residency(a=model(LoadState.LOADING, load_began=NOW - 3), b=model(LoadState.LOADING, load_began=NOW - 9))
    models = report_of("n", state, NOW, 32, 2.0).models
    assert (models["a"], models["b"]) == (
        ModelReport(pytest.approx(1.0), size_bytes=40),
        ModelReport(MIN_LEFT_S, size_bytes=40),
    )


def test_a_load_costs_what_has_to_go_for_it() -> None:
    fits = report_of("n", residency(a=model(LoadState.UNLOADED)), NOW, 32, 2.0).models["a"]
    state = residency(a=model(LoadState.UNLOADED, 60), b=model(LoadState.LOADED, 61))
    evicts = report_of("n", state, NOW, 32, 2.0).models["a"]
    assert (fits.ready_s, fits.is_resident) == (4.0, False)
    assert evicts.ready_s > 4.0


def test_a_model_that_never_fits_or_has_just_failed_says_so() -> None:
    large = model(LoadState.UNLOADED, 500)
    failed = model(LoadState.FAILED, reason="its file is damaged", retry_at=NOW + 5)
    models = report_of("n", residency(a=large, b=failed), NOW, 32, 2.0).models
    assert models["a"].failure == "it does not fit the memory"
    assert models["b"].failure == "its file is damaged"
    assert not models["b"].is_resident


def test_nothing_is_reported_of_models_whose_files_were_not_read() -> None:
    assert report_of("n", residency(a=ModelState(ModelPolicy(ModelId("a"), 8))), NOW, 32, 2.0).models == {}


def test_a_report_has_plans_of_those_models_alone_that_were_used_last() -> None:
    many = {f"m{number}": model(LoadState.UNLOADED, 1, last_used=float(number)) for number in range(MAX_PLANS + 5)}
    models = report_of("n", residency(10_000, **many), NOW, 32, 2.0).models
    assert set(models) == {f"m{number}" for number in range(5, MAX_PLANS + 5)}


def test_the_mean_of_answers_follows_the_latest_ones() -> None:
    assert mean_service_s(1.0, []) == 1.0
    assert mean_service_s(1.0, [11.0]) == pytest.approx(2.0)
    assert mean_service_s(1.0, [5.0] * 100) == pytest.approx(5.0, rel=0.01)
    assert report_of("n", residency(), NOW, 32, 0.0).service_s == MIN_SERVICE_S
