"""What the directory of a cluster keeps of its nodes, and what it has them load."""

from __future__ import annotations

from modelyard.cluster.node_book import DEMAND_S, EXPIRES_S, PLAN_S, NodeBook
from modelyard.cluster.node_report import ModelReport, NodeReport
from modelyard.config.cluster import Cluster

BUSY = ModelReport(0.0, running=4, waiting=4, size_bytes=40)


def register(
    book: NodeBook, node: str, now: float, labels: dict[str, str] | None = None, **models: ModelReport
) -> list[str]:
    return book.register(node, (node, 1), labels or {}, NodeReport(node, 4, budget_bytes=100, models=models), now)


def test_nodes_are_known_as_long_as_they_register() -> None:
    book = NodeBook(Cluster())
    register(book, "a", 0.0)
    register(book, "b", EXPIRES_S - 1)
    assert book.addresses(EXPIRES_S - 0.5) == {"a": ("a", 1), "b": ("b", 1)}
    assert book.addresses(EXPIRES_S) == {"b": ("b", 1)}


def test_a_model_that_is_asked_for_much_is_loaded_on_another_node() -> None:
    book = NodeBook(Cluster())
    ordered: dict[str, list[str]] = {"a": [], "b": []}
    for second in range(round(4 * DEMAND_S)):
        ordered["a"] += register(book, "a", float(second), m=BUSY)
        ordered["b"] += register(book, "b", float(second))
    assert sorted(book.homes["m"]) == ["a", "b"]
    assert ordered == {"a": [], "b": ["m"]}


def test_a_model_is_kept_on_as_many_nodes_as_the_configuration_says() -> None:
    book = NodeBook(Cluster(max_nodes=2, replicas={"m": 2}))  # type: ignore[arg-type]
    for second in range(round(3 * PLAN_S)):
        register(book, "a", float(second))
        register(book, "b", float(second))
    assert sorted(book.homes["m"]) == ["a", "b"]


def test_a_model_is_wanted_only_where_its_labels_are() -> None:
    book = NodeBook(Cluster(replicas={"m": 1}, labels={"m": {"zone": "b"}}))  # type: ignore[arg-type]
    for second in range(round(3 * PLAN_S)):
        register(book, "a", float(second), {"zone": "a"})
        register(book, "b", float(second), {"zone": "b"})
    assert book.homes["m"] == ("b",)


def test_no_more_loads_are_asked_for_than_allowed() -> None:
    book = NodeBook(Cluster(max_nodes=9, replicas={"m": 9}, loads_per_hour=2))  # type: ignore[arg-type]
    ordered: list[str] = []
    for second in range(round(3 * PLAN_S)):
        for node in "abcdefghi":
            ordered += register(book, node, float(second))
    assert len(ordered) == 2


def test_models_of_a_node_that_drains_are_wanted_elsewhere() -> None:
    book = NodeBook(Cluster(replicas={"m": 1}))  # type: ignore[arg-type]
    register(book, "a", 0.0)
    draining = NodeReport("a", 4, budget_bytes=100, is_draining=True)
    for second in range(1, round(3 * PLAN_S)):
        book.register("a", ("a", 1), {}, draining, float(second))
        register(book, "b", float(second))
    assert book.homes["m"] == ("b",)


def test_a_node_that_comes_back_as_another_process_loads_its_models_again() -> None:
    book = NodeBook(Cluster(max_nodes=2, replicas={"m": 2}))  # type: ignore[arg-type]
    for second in range(round(2 * PLAN_S)):
        register(book, "a", float(second), m=BUSY)
        register(book, "b", float(second), m=BUSY)
    ordered: list[str] = []
    for second in range(round(2 * PLAN_S), round(4 * PLAN_S)):
        register(book, "a", float(second), m=BUSY)
        ordered += book.register("b", ("b", 2), {}, NodeReport("b", 4, budget_bytes=100), float(second))
    assert sorted(book.homes["m"]) == ["a", "b"]
    assert ordered == ["m"]
