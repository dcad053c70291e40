"""The metrics of nodes, as plain values that cross connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MetricFamily = tuple[str, str, str, tuple[tuple[str, dict[str, str], float], ...]]
"""Name, type and help text of a metric, and its samples: their names, labels and values."""


@dataclass(frozen=True, slots=True)
class NodeScrape:
    """What the nodes of a cluster answered to one scrape.

    Attributes:
        families: the metrics of each node, by its name.
        missing: nodes that did not answer in time.
    """

    families: Mapping[str, tuple[MetricFamily, ...]] = field(default_factory=dict)
    missing: int = 0
