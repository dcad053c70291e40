"""``modelyard events``: follows what happens to the models of a server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import typer

from modelyard.cli.client.choose import choose_server
from modelyard.cli.client.follow import followed
from modelyard.cli.client.model_words import on_place
from modelyard.cli.client.options import JsonLinesOption, KeyFileOption, UrlOption
from modelyard.cli.client.output import print_json_line
from modelyard.cli.exit_codes import INTERRUPTED
from modelyard.system.printable import printable

# Loads report every few milliseconds: a line for each tenth is enough.
_TENTHS: Final = 10


def events(url: UrlOption = None, key_file: KeyFileOption = None, as_json: JsonLinesOption = False) -> None:
    """Follow the models of a running server: what state each is in, and then every change. Ctrl-C ends it."""
    server = choose_server(url, key_file)
    printer = EventPrinter()
    try:
        for name, change in followed(server.address, "/v1/models/events"):
            if as_json:
                print_json_line({"event": name, "time": time.time(), **change})
            elif (text := printer.text(change)) is not None:
                typer.echo(f"{time.strftime('%H:%M:%S')} {printable(text)}")
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


class EventPrinter:
    """Turns events into lines, of which progress has one for each tenth."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[str, int]] = {}

    def text(self, change: Mapping[str, Any]) -> str | None:
        """Return the line of an event; None: it has none."""
        model, stage = change["model_id"], change.get("stage", change["status"])
        if (progress := change.get("progress")) is not None:
            tenth = (stage, int(progress * _TENTHS))
            if self._shown.get(model) == tenth:
                return None
            self._shown[model] = tenth
            return f"{model}: {stage} {progress:.0%}"
        self._shown.pop(model, None)
        text = f"{model}: {stage}{on_place(change.get('placement'))}"
        if change.get("last_death") is not None:
            text += f", its engine died: {change['last_death']} ({change.get('restarts')} since the start)"
        if change.get("error") is not None:
            text += f": {change['error']}"
        return text
