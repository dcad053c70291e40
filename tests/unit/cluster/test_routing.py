"""Which node of a cluster gets a request."""

from __future__ import annotations

from modelyard.cluster.node_report import ModelReport, NodeReport
from modelyard.cluster.routing import MAX_COMPARED, MAX_PREFIXES, MAX_REFUSED_S, Choice, RoutingTable

NOW = 100.0
LOADED = ModelReport(0.0)


def report(node: str, *, is_draining: bool = False, used: int = 0, slots: int = 4, **models: ModelReport) -> NodeReport:
    return NodeReport(
        node, slots=slots, budget_bytes=100, used_bytes=used, models=models, is_draining=is_draining, service_s=1.0
    )


def table(*reports: NodeReport) -> RoutingTable:
    made = RoutingTable()
    for each in reports:
        made.update(each)
    return made


def chosen(made: RoutingTable, model: str = "m", key: str = "", tried: tuple[str, ...] = ()) -> tuple[str, str]:
    choice = made.choose(model, key, NOW, tried)
    assert choice is not None
    return choice.node, choice.why


def test_a_request_goes_to_the_node_that_has_its_model() -> None:
    made = table(report("a"), report("b", m=LOADED), report("c", other=LOADED))
    assert chosen(made) == ("b", "resident")


def test_of_two_nodes_with_the_model_the_one_with_less_to_do_gets_it() -> None:
    made = table(report("a", m=ModelReport(0.0, running=3)), report("b", m=ModelReport(0.0, running=1)))
    assert chosen(made) == ("b", "resident")


def test_a_conversation_stays_where_its_beginning_is_until_that_node_has_clearly_more_to_do() -> None:
    made = table(report("a", m=ModelReport(0.0, running=1)), report("b", m=LOADED))
    made.note_sent("a", "m", "talk")
    made.update(report("a", m=ModelReport(0.0, running=1)))
    assert chosen(made, key="talk") == ("a", "prefix")
    assert chosen(made, key="another") == ("b", "resident")
    made.update(report("a", m=ModelReport(0.0, running=3)))
    assert chosen(made, key="talk") == ("b", "resident")


def test_a_conversation_whose_node_has_unloaded_the_model_goes_where_it_is_loaded() -> None:
    made = table(report("a"), report("b", m=LOADED))
    made.note_sent("a", "m", "talk")
    assert chosen(made, key="talk") == ("b", "resident")


def test_a_model_that_nobody_has_is_loaded_where_that_costs_least_by_the_nodes_own_plans() -> None:
    plan = {name: ModelReport(cost, is_resident=False) for name, cost in (("a", 9.0), ("b", 2.0), ("c", 5.0))}
    made = table(*(report(name, m=each) for name, each in plan.items()))
    assert chosen(made) == ("b", "loads")


def test_a_node_that_cannot_load_the_model_comes_last() -> None:
    never = ModelReport(0.5, is_resident=False, failure="it does not fit the memory")
    made = table(report("a", m=never), report("b", m=ModelReport(50.0, is_resident=False)))
    assert chosen(made) == ("b", "loads")
    assert chosen(made, tried=("b",)) == ("a", "loads")


def test_a_model_without_a_plan_is_loaded_where_memory_is_free() -> None:
    assert chosen(table(report("a", used=100), report("b"), report("c", used=100))) == ("b", "loads")


def test_where_the_queue_is_longer_than_a_load_the_model_is_loaded_once_more() -> None:
    full = ModelReport(0.0, running=4, waiting=60)
    made = table(report("a", m=full), report("b", m=ModelReport(3.0, is_resident=False)))
    assert chosen(made) == ("b", "loads")


def test_a_load_that_has_begun_is_waited_for_rather_than_begun_elsewhere() -> None:
    made = table(report("a", m=ModelReport(4.0)), report("b", m=ModelReport(5.0, is_resident=False)))
    assert chosen(made) == ("a", "resident")


def test_requests_that_a_report_does_not_count_yet_are_counted() -> None:
    made = table(report("a", m=LOADED), report("b", m=LOADED))
    nodes = []
    for _ in range(6):
        node, _ = chosen(made)
        made.note_sent(node, "m", "")
        nodes.append(node)
    assert sorted(nodes) == ["a", "a", "a", "b", "b", "b"]
    made.update(report("a", m=ModelReport(0.0, running=1)))
    assert chosen(made)[0] == "a"


def test_a_node_that_refused_is_not_asked_again_by_the_request_and_comes_last_for_others() -> None:
    made = table(report("a", m=LOADED), report("b", m=ModelReport(0.0, running=2)))
    assert chosen(made)[0] == "a"
    assert chosen(made, tried=("a",))[0] == "b"
    made.note_refused("a", "m", NOW)
    assert chosen(made)[0] == "b"
    later = made.choose("m", "", NOW + MAX_REFUSED_S)
    assert later is not None
    assert later.node == "a"


def test_no_node_asks_to_be_spared_for_more_than_a_minute() -> None:
    made = table(report("a", m=LOADED), report("b", m=ModelReport(0.0, running=2)))
    made.note_refused("a", "m", NOW, retry_after_s=1e9)
    later = made.choose("m", "", NOW + MAX_REFUSED_S)
    assert later is not None
    assert later.node == "a"


def test_a_node_that_drains_gets_nothing_and_one_that_is_gone_is_not_chosen() -> None:
    made = table(report("a", is_draining=True, m=LOADED), report("b"))
    assert chosen(made) == ("b", "loads")
    made.remove("b")
    made.remove("unknown")
    assert made.choose("m", "", NOW) is None


def test_every_node_is_tried_once_before_a_request_is_given_up() -> None:
    made = table(*(report(f"n{number}") for number in range(40)))
    tried: list[str] = []
    while (choice := made.choose("m", "", NOW, tried)) is not None:
        tried.append(choice.node)
    assert sorted(tried) == sorted(made.nodes)


def test_a_model_is_loaded_at_its_home() -> None:
    made = table(*(report(f"n{number}", used=100) for number in range(40)))
    made.update(report("home"))
    made.set_homes({"m": ("home", "gone")})
    assert chosen(made) == ("home", "loads")


def test_of_many_nodes_with_a_model_a_conversation_finds_the_same_few() -> None:
    made = table(*(report(f"n{number}", m=LOADED) for number in range(10 * MAX_COMPARED)))
    first = chosen(made, key="talk")
    made.remove(next(name for name in made.nodes if name != first[0]))
    assert chosen(made, key="talk") == first


def test_conversations_that_were_used_longest_ago_are_dropped() -> None:
    made = table(report("a", m=ModelReport(0.0, running=1)), report("b", m=LOADED))
    made.note_sent("a", "m", "first")
    for number in range(MAX_PREFIXES):
        made.note_sent("b", "x", str(number))
    assert chosen(made, key="first") == ("b", "resident")


def test_what_is_known_of_a_node_is_its_last_report() -> None:
    made = table(report("a", m=LOADED), report("a", other=LOADED), report("b", m=LOADED))
    assert made.report("a") == report("a", other=LOADED)
    assert made.report("gone") is None
    assert chosen(made) == ("b", "resident")


def test_what_a_node_has_refused_or_is_gone_with_is_not_counted_as_sent() -> None:
    made = table(report("a", m=LOADED), report("b", m=LOADED))
    first, _ = chosen(made)
    made.note_sent(first, "m", "")
    second, _ = chosen(made)
    assert second != first
    # It is spared for a moment, and then has as little to do as before.
    made.note_refused(first, "m", NOW)
    assert chosen(made)[0] == second
    assert made.choose("m", "", NOW + MAX_REFUSED_S) == Choice(first, "resident", 0.0)


def test_a_node_that_has_left_is_neither_counted_nor_spared() -> None:
    made = table(report("a", m=LOADED))
    made.note_sent("gone", "m", "talk")
    made.note_refused("gone", "m", NOW)
    assert set(made.nodes) == {"a"}
    assert chosen(made, key="talk") == ("a", "resident")
    assert made.report("gone") is None
