"""``modelyard list``: all models of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from modelyard.cli.client.choose import choose_server
from modelyard.cli.client.model_words import context, state
from modelyard.cli.client.options import JsonOption, KeyFileOption, UrlOption
from modelyard.cli.client.output import memory, print_json, print_rows
from modelyard.errors import ServerUnreachable


def list_models(url: UrlOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> None:
    """List all models of a running server, loaded or not."""
    try:
        server = choose_server(url, key_file, only_looks=True)
    except ServerUnreachable as error:
        error.add_note("Models on this machine's disk: modelyard cache list")
        raise
    if as_json:
        print_json({**server.state, "url": server.address.url})
        return
    headings = ("Model", "State", "Quantisation", "Size", "Context", "From")
    print_rows(headings, map(_row, server.models), right=("Size", "Context"), spare=("From",))
    typer.echo("\nDetails of one: modelyard show MODEL", err=True)


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        model["id"],
        f"{state(model)}, default" if model.get("default") else state(model),
        model.get("quantization", ""),
        memory(model.get("size_bytes")),
        context(model),
        model.get("source", ""),
    )
