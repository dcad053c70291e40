"""The nodes of a cluster, as ``modelyard ps`` shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.cli.client.connection import ServerAddress, get
from modelyard.cli.client.model_words import requests
from modelyard.cli.client.output import memory, print_rows
from modelyard.errors import ServerRefused

_STATES = {"reloading": "loading"}


def nodes_of(address: ServerAddress, models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the nodes of a server; None where it is no cluster, or the key may not see them.

    Args:
        address: the server.
        models: those of its ``GET /v1/server``.

    Raises:
        ServerUnreachable, NotModelyard, ServerRefused: see ``connection.get``.
    """
    if not any("nodes" in model for model in models):
        return None
    try:
        nodes: list[dict[str, Any]] = get(address, "/v1/nodes")["data"]
    except ServerRefused as refused:
        if refused.server_status != 403:
            raise
        return None
    return nodes


def on_node(model: Mapping[str, Any], node: object) -> Mapping[str, Any]:
    """Return a model of ``GET /v1/server`` as it is on a node of a cluster; as it is where ``node`` is None."""
    if node is None:
        return model
    there = (model.get("nodes") or {}).get(node, {"status": "unloaded", "resident_bytes": 0})
    state = _STATES.get(there["status"], there["status"])
    return {"id": f"{model['id']} on {node}", "state": state, "resident_bytes": there["resident_bytes"]}


def print_nodes(nodes: Sequence[Mapping[str, Any]]) -> None:
    """Print a row for each node and each model that it has."""
    headings = ("Node", "Memory used", "Model", "State", "Memory", "Requests")
    print_rows(headings, _rows(nodes), right=("Memory",), spare=("Memory used",))


def _rows(nodes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for node in nodes:
        name = node["id"] if node["status"] == "up" else f"{node['id']} ({node['status']})"
        held = node["memory"]
        used = f"{memory(held['used_bytes']) or '0 B'} of {memory(held['budget_bytes']) or '0 B'}"
        active = {model: each for model, each in node["models"].items() if _is_active(each)}
        if not active:
            yield name, used, "", "", "", ""
        for model, each in active.items():
            status = "failed" if "error" in each else _STATES.get(each["status"], each["status"])
            yield name, used, model, status, memory(each["resident_bytes"]), requests(each)


def _is_active(model: Mapping[str, Any]) -> bool:
    return model["status"] != "unloaded" or "error" in model or model["running"] > 0 or model["waiting"] > 0
