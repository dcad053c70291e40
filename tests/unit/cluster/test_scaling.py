"""How many nodes a cluster should have."""

from __future__ import annotations

import pytest

from modelyard.cluster.scaling import nodes_wanted


@pytest.mark.parametrize(
    ("present", "waiting", "running", "wanted"),
    [
        (2, 8, 5, 2),
        (2, 9, 5, 3),
        (2, 12, 5, 3),
        (2, 1000, 5, 4),
        (3, 0, 1, 3),
        (3, 1, 0, 3),
        (3, 0, 0, 1),
        (0, 0, 0, 1),
    ],
)
def test_nodes_join_where_more_waits_than_they_may_and_leave_where_nothing_runs(
    present: int, waiting: int, running: int, wanted: int
) -> None:
    assert nodes_wanted(present, waiting, running, target_queue=4) == wanted
