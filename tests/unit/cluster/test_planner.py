"""How models are spread over the nodes of a cluster."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.cluster.planner import ClusterPlan, PlannedModel, PlannedNode, PlanRules, plan_cluster

SPREAD, PACK = PlanRules(10.0), PlanRules(10.0, "pack")


def nodes(count: int, budget: int = 100) -> list[PlannedNode]:
    return [PlannedNode(f"n{number}", budget) for number in range(count)]


def planned(
    models: list[PlannedModel], some: list[PlannedNode], rules: PlanRules = SPREAD, loads: int = 100, **present: str
) -> ClusterPlan:
    return plan_cluster(some, models, {name: tuple(where.split()) for name, where in present.items()}, rules, loads)


def test_models_with_demand_are_spread_over_the_nodes() -> None:
    plan = planned([PlannedModel(name, 40, 5.0) for name in "abc"], nodes(3))
    assert sorted(node for where in plan.homes.values() for node in where) == ["n0", "n1", "n2"]
    assert plan.unplaced == ()


def test_packed_models_share_a_node_as_long_as_they_fit() -> None:
    plan = planned([PlannedModel(name, 40, 5.0) for name in "abc"], nodes(3), PACK)
    assert sorted(where[0] for where in plan.homes.values()) == ["n0", "n0", "n1"]


def test_a_model_gets_as_many_replicas_as_its_demand_needs() -> None:
    plan = planned([PlannedModel("m", 50, 25.0)], nodes(5))
    assert len(plan.homes["m"]) == 3
    assert len(set(plan.homes["m"])) == 3


def test_a_number_of_replicas_holds_whatever_the_demand() -> None:
    plan = planned([PlannedModel("m", 50, 0.0, replicas=2)], nodes(5))
    assert len(plan.homes["m"]) == 2


def test_nothing_moves_while_nothing_changes() -> None:
    models = [PlannedModel(name, 30, 4.0) for name in "abcdef"]
    first = planned(models, nodes(3))
    again = plan_cluster(nodes(3), models, first.homes, SPREAD, 100)
    assert (again.homes, again.loads, again.releases) == (first.homes, (), ())


def test_a_replica_is_given_up_only_where_the_others_take_its_demand_with_ease() -> None:
    assert planned([PlannedModel("m", 50, 9.0)], nodes(3), m="n0 n1").releases == ()
    assert planned([PlannedModel("m", 50, 5.0)], nodes(3), m="n0 n1").releases == (("m", "n1"),)


def test_models_of_a_node_that_is_gone_get_another_one_first() -> None:
    models = [PlannedModel("lost", 50, 1.0), PlannedModel("grows", 50, 30.0)]
    plan = planned(models, nodes(3), loads=1, lost="gone", grows="n0")
    assert plan.homes["lost"][0] != "gone"
    assert plan.homes["grows"] == ("n0",)


def test_what_serves_most_requests_for_its_bytes_gets_the_memory() -> None:
    models = [PlannedModel("large", 90, 5.0), PlannedModel("small", 20, 5.0)]
    plan = planned(models, nodes(1))
    assert plan.unplaced == ("large",)
    # It has a home all the same, where it is loaded in turn.
    assert plan.homes == {"small": ("n0",), "large": ("n0",)}
    assert plan.loads == (("small", "n0"),)


def test_models_that_nobody_asks_for_have_a_home_each_and_cause_no_load() -> None:
    plan = planned([PlannedModel(name, 50) for name in "abcdef"], nodes(3))
    assert sorted(where for (where,) in plan.homes.values()) == ["n0", "n0", "n1", "n1", "n2", "n2"]
    assert plan.loads == ()


def test_a_model_is_only_where_its_labels_are() -> None:
    some = [PlannedNode("plain", 100), PlannedNode("gpu", 100, {"accelerator": "h200"})]
    wants = {"accelerator": "h200"}
    plan = planned([PlannedModel("m", 50, 25.0, labels=wants), PlannedModel("cold", 50, labels=wants)], some)
    assert plan.homes == {"m": ("gpu",), "cold": ("gpu",)}


def test_a_model_that_fits_no_node_has_no_home() -> None:
    assert planned([PlannedModel("m", 500), PlannedModel("hot", 500, 3.0)], nodes(2)).homes == {}


def test_a_node_with_clearly_too_much_gives_a_replica_away() -> None:
    models = [PlannedModel("a", 20, 9.0), PlannedModel("b", 20, 8.0), PlannedModel("c", 20, 1.0)]
    plan = planned(models, nodes(2), a="n0", b="n0", c="n1")
    assert sorted(plan.homes[name][0] for name in "ab") == ["n0", "n1"]
    assert len(plan.loads) == 1


@st.composite
def _clusters(draw: st.DrawFn) -> tuple[list[PlannedNode], list[PlannedModel], dict[str, tuple[str, ...]], int]:
    some = nodes(draw(st.integers(0, 5)))
    names = [f"n{number}" for number in range(7)]
    models = [
        PlannedModel(
            f"m{number}",
            draw(st.integers(1, 120)),
            draw(st.sampled_from([0.0, 1.0, 15.0, 60.0])),
            draw(st.sampled_from([None, None, 1, 3])),
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    present = {model.name: tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=4))) for model in models}
    return some, models, present, draw(st.integers(0, 6))


@given(_clusters(), st.sampled_from([SPREAD, PACK]))
def test_every_plan_keeps_memory_and_loads_within_their_bounds(
    cluster: tuple[list[PlannedNode], list[PlannedModel], dict[str, tuple[str, ...]], int], rules: PlanRules
) -> None:
    some, models, present, loads = cluster
    plan = plan_cluster(some, models, present, rules, loads)
    by_name = {model.name: model for model in models}
    assert len(plan.loads) <= loads
    held: dict[str, int] = {}
    for name, where in plan.homes.items():
        assert len(set(where)) == len(where)
        assert set(where) <= {node.name for node in some}
        model = by_name[name]
        if (model.demand > 0 or model.replicas is not None) and name not in plan.unplaced:
            for node in where:
                held[node] = held.get(node, 0) + model.size_bytes
    assert all(size <= 100 for size in held.values())
    again = plan_cluster(some, models, plan.homes, rules, 0)
    assert again.loads == ()
