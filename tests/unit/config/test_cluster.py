"""``[cluster]``: counts of nodes that agree, and models that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, load_config, validate_config
from modelyard.errors import ConfigError

MODELS = [{"model_id": "a.gguf", "alias": "a"}, {"model_id": "far", "remote": "http://there/v1"}]


def config(**cluster: Any) -> Config:
    return validate_config({"models": MODELS, "cluster": cluster}, source="test", base=Path("/"))


def test_it_is_one_node_unless_it_says_more() -> None:
    cluster = config().cluster
    assert (cluster.min_nodes, cluster.max_nodes, cluster.replicas_of("a"), cluster.labels_of("a")) == (1, 1, None, {})


def test_tables_of_models_are_read() -> None:
    cluster = config(max_nodes=4, replicas={"a": 3}, labels={"a": {"zone": "b"}}, drain_seconds="2m").cluster
    assert (cluster.replicas_of("a"), cluster.labels_of("a"), cluster.drain_seconds) == (3, {"zone": "b"}, 120.0)


def test_replicas_may_be_left_to_the_demand() -> None:
    cluster = config(max_nodes=4, replicas={"a": "auto"}, target_first_token="1.5s").cluster
    assert (cluster.replicas_of("a"), cluster.target_first_token) == (None, 1.5)
    assert cluster.min_nodes == 1
    assert config(min_nodes=0).cluster.min_nodes == 0


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        ({"min_nodes": 3, "max_nodes": 2}, "min_nodes 3 is more than max_nodes 2"),
        ({"max_nodes": 2, "replicas": {"a": 3}}, "at most 2 nodes"),
        ({"replicas": {"b": 1}}, "replicas names 'b'"),
        ({"labels": {"far": {"zone": "b"}}}, "labels names 'far'"),
        ({"replicas": {"a": 0}}, 'from 1 to 10000, or "auto"'),
        ({"replicas": {"a": "many"}}, 'from 1 to 10000, or "auto"'),
        ({"idle_seconds": 1}, "idle_seconds"),
        ({"target_first_token": 0}, "target_first_token"),
        ({"nodes": 3}, "unknown key 'nodes'"),
    ],
)
def test_what_does_not_agree_is_refused(cluster: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(**cluster)


def test_problems_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[cluster]\nmax_nodes = 1\nreplicas = { a = 2 }\n[[models]]\nmodel_id = "a.gguf"\nalias = "a"\n')
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert [problem.line for problem in refused.value.problems] == [3]
