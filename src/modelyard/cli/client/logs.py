"""``modelyard logs``: the log of a server, from its memory."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer

from modelyard.cli.client.choose import ChosenServer, choose_server, choose_server_of
from modelyard.cli.client.completion import complete_model
from modelyard.cli.client.connection import get
from modelyard.cli.client.follow import followed
from modelyard.cli.client.options import JsonLinesOption, KeyFileOption, UrlOption
from modelyard.cli.client.output import print_json_line
from modelyard.cli.exit_codes import INTERRUPTED
from modelyard.cli.usage import UsageError
from modelyard.system.printable import printable, printable_lines

_DEFAULT_LINES: Final = 100
_MAX_LINES: Final = 5_000


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=0, max=_MAX_LINES, help="Number of the last lines. [dim]\\[default: 100][/]"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only lines of the last 10m, 2h or 1d, or since a time."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Only lines that name this model.", autocompletion=complete_model
        ),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonLinesOption = False,
) -> None:
    """Show the last lines of a running server's log, or follow it."""
    query: dict[str, Any] = {"lines": lines if lines is not None else _DEFAULT_LINES if since is None else _MAX_LINES}
    if since is not None:
        query["since"] = earliest(since, time.time())
    server = choose_server(url, key_file) if model is None else choose_server_of([model], url, key_file)
    if model is not None:
        query["model"] = server.model_id(model)
    try:
        _print(server, query, follow=follow, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _print(server: ChosenServer, query: dict[str, Any], *, follow: bool, as_json: bool) -> None:
    if follow:
        path = f"/v1/logs?{urlencode({**query, 'follow': 'true'})}"
        found = (line for _, line in followed(server.address, path))
    else:
        found = iter(get(server.address, f"/v1/logs?{urlencode(query)}")["data"])
    for line in found:
        if as_json:
            print_json_line(line)
        else:
            typer.echo(log_text(line))


def log_text(line: Mapping[str, Any]) -> str:
    """Return a line of the log as the server's console shows it, in local time."""
    moment = datetime.fromisoformat(line["time"]).astimezone()
    stamp = moment.strftime("%Y-%m-%d %H:%M:%S") + f",{moment.microsecond // 1000:03d}"
    return f"{stamp} {printable(line['level'])} {printable_lines(line['message'])}"


def earliest(text: str, now: float) -> float:
    """Return the time, in seconds of the epoch, that --since means.

    Args:
        text: a duration as in a configuration, such as "10m" or "1h30m", seconds, or a date and time of ISO 8601, local
            unless it says.
        now: the present.

    Raises:
        UsageError: it is neither.
    """
    text = text.strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return now - float(text)
    # Imports the configuration, which the other forms do without.
    from modelyard.config.durations import seconds_of

    with suppress(ValueError):
        return now - seconds_of(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"--since '{text}' is no time. Write how long ago, such as 30s, 10m, 2h or 1d, or when, such as "
            "2026-11-29T12:00."
        ) from None
