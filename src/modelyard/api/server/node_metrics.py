"""Metrics of many nodes in one answer: those of each node get the label ``node``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from modelyard.yard.stats.node_metrics import MetricFamily


def plain_families(families: Iterable[Metric]) -> tuple[MetricFamily, ...]:
    """Return metrics as plain values, without those that have no sample."""
    return tuple(
        (
            family.name,
            family.type,
            family.documentation,
            tuple((sample.name, dict(sample.labels), float(sample.value)) for sample in family.samples),
        )
        for family in families
        if family.samples
    )


class MergedMetrics(Collector):
    """The metrics of a front and of its nodes, each metric once.

    Args:
        own: the metrics of the front.
        nodes: those of each node.
    """

    def __init__(self, own: Sequence[Metric], nodes: Mapping[str, Iterable[MetricFamily]]) -> None:
        self._own, self._nodes = own, nodes

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics: the samples of one follow each other, as the formats ask for."""
        families: dict[str, Metric] = {}
        for family in self._own:
            families[family.name] = copied = Metric(family.name, family.documentation, family.type)
            copied.samples = [*family.samples]
        for node, found in self._nodes.items():
            for name, kind, meaning, samples in found:
                merged = families.setdefault(name, Metric(name, meaning, kind))
                for sample, labels, value in samples:
                    merged.add_sample(sample, {**labels, "node": node}, value)
        yield from families.values()
