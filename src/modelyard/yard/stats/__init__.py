"""Counts, snapshots and status for /metrics, /v1/models and events."""
