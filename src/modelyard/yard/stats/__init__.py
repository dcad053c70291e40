"""Counters, snapshots and status for ``/metrics``, ``/v1/models`` and the events of models."""
