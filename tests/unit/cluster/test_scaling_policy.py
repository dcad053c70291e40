"""How many nodes Ray Serve is told to have: the policy, and that Serve can import it."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

with warnings.catch_warnings():
    # Ray's own, of pydantic.
    warnings.simplefilter("ignore")
    pytest.importorskip("ray")
    from ray.serve.config import AutoscalingPolicy

    from modelyard.cluster.application import application

from modelyard.cluster.scaling_policy import NodePolicy

NAME = f"{NodePolicy.__module__}:{NodePolicy.__name__}"


def context(waiting: float, running: float, present: int) -> Any:
    metrics = {"waiting": {"a": waiting}, "running": {"a": running}}
    return SimpleNamespace(aggregated_metrics=metrics, current_num_replicas=present)


def test_serve_makes_the_policy_by_its_name_and_asks_it() -> None:
    policy = AutoscalingPolicy(policy_function=NAME, policy_kwargs={"target_queue": 2.0})  # type: ignore[no-untyped-call]
    decide = policy.get_policy()(**policy.policy_kwargs)
    assert decide(context(waiting=5, running=1, present=1)) == (2, {})
    assert decide(context(waiting=0, running=0, present=3)) == (0, {})


def test_while_nodes_have_recorded_nothing_none_is_asked_for() -> None:
    assert NodePolicy(2.0)(SimpleNamespace(aggregated_metrics=None, current_num_replicas=0)) == (0, {})


def test_the_numbers_of_all_nodes_count_together() -> None:
    metrics = {"waiting": {"a": 9.0, "b": 8.0}, "running": {"a": 32.0, "b": 32.0}, "slots": {"a": 32.0, "b": 32.0}}
    assert NodePolicy(4.0)(SimpleNamespace(current_num_replicas=2, aggregated_metrics=metrics)) == (4, {})


def test_an_application_whose_nodes_come_and_go_can_be_made() -> None:
    tables = {"cluster": {"max_nodes": 3}, "models": [{"model_id": "m.gguf"}]}
    assert application({"tables": tables, "source": "test", "base": "/"})
