"""``modelyard ps``: the models that take memory or have requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from modelyard.cli.client.choose import choose_server
from modelyard.cli.client.model_words import context, place, requests, state, unloads
from modelyard.cli.client.nodes import nodes_of, print_nodes
from modelyard.cli.client.options import JsonOption, KeyFileOption, UrlOption
from modelyard.cli.client.output import duration, memory, print_json, print_rows
from modelyard.cli.messages import print_note
from modelyard.system.quantities import count_text


def ps(url: UrlOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> None:
    """Show the models that are loaded or parked, are being loaded, or have requests waiting.

    Of a cluster, show each node with its models.
    """
    server = choose_server(url, key_file, only_looks=True)
    models = [model for model in server.models if is_active(model)]
    nodes = nodes_of(server.address, server.models)
    if as_json:
        print_json({**server.state, "url": server.address.url, "models": models, **({"nodes": nodes} if nodes else {})})
        return
    if nodes is not None:
        if nodes:
            print_nodes(nodes)
        else:
            print_note("No node of the cluster is connected.")
    elif models:
        headings = ("Model", "State", "Memory", "Predicted", "Requests", "Context", "Device", "Idle", "Unloads")
        print_rows(
            headings, map(_row, models), right=("Memory", "Predicted", "Context", "Idle"), spare=("Device", "Predicted")
        )
    else:
        others = count_text(len(server.models), "model")
        print_note(f"No model is loaded. The server has {others}: modelyard list")
    if (total := server.state.get("memory")) is not None and (models or nodes):
        typer.echo("\n" + "\n".join(_totals(total)), err=True)


def _totals(total: Mapping[str, Any]) -> Iterator[str]:
    """Yield what all models take of the host, and of each device."""
    devices = total.get("devices") or {}
    host = " of the host" if devices else ""
    yield f"{memory(total['used_bytes']) or 'Nothing'} of {memory(total['budget_bytes'])}{host} in use."
    for name, device in devices.items():
        used, budget = (memory(device[key]) for key in ("used_bytes", "budget_bytes"))
        yield f"{used or 'Nothing'} of {budget or 'nothing'} of {name} in use."


def is_active(model: Mapping[str, Any]) -> bool:
    """Whether a model takes memory, comes to take it, or is waited for."""
    return model["state"] not in ("unloaded", "failed") or model["running"] > 0 or model["waiting"] > 0


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        model["id"],
        state(model),
        memory(model.get("resident_bytes")),
        memory(model.get("predicted_bytes")),
        requests(model),
        context(model),
        place(model),
        duration(model.get("idle_seconds")),
        unloads(model),
    )
