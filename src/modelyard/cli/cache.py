"""``modelyard cache``: what converted and downloaded models take on disk."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from modelyard.errors import UnusableModel

cache = typer.Typer(help="Show and delete converted and downloaded models.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class _Row:
    """A model in one of the caches: names are what it can be deleted by, the one that is shown first."""

    names: tuple[str, ...]
    what: str
    size_bytes: int
    used_at: float
    delete: Callable[[], None]


@cache.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
    """List converted and downloaded models, the one that was used last first."""
    rows = _rows()
    if as_json:
        facts = [
            {"name": row.names[0], "what": row.what, "size_bytes": row.size_bytes, "used_at": row.used_at}
            for row in rows
        ]
        typer.echo(json.dumps(facts, indent=2))
        return
    if not rows:
        typer.echo("Nothing is in the cache.")
        return
    from modelyard.cli.tables import plain_table, size, table_console

    table = plain_table("Model", "Size", "Last used", "What", right=("Size",), fold="Model")
    for row in rows:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.used_at))
        table.add_row(row.names[0], size(row.size_bytes), used, row.what)
    table.columns[-1].no_wrap = False
    console = table_console()
    console.print(table)
    models = "1 model" if len(rows) == 1 else f"{len(rows)} models"
    console.print(f"\n{models}, {size(sum(row.size_bytes for row in rows))}. Delete one: modelyard cache delete MODEL")


@cache.command("delete")
def delete_model(
    model: Annotated[str, typer.Argument(help="As the list shows it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a converted model, or a repository with all of its downloaded revisions."""
    from modelyard.cli.tables import size

    rows = _rows()
    meant = [row for row in rows if model in row.names]
    if len(meant) > 1:
        raise UnusableModel(f"'{model}' is {len(meant)} models: {', '.join(row.names[0] for row in meant)}. Name one.")
    if not meant:
        known = ", ".join(row.names[0] for row in rows) or "nothing"
        raise UnusableModel(f"'{model}' is not in the cache. There is: {known}.")
    (row,) = meant
    if not yes:
        typer.confirm(f"Delete {model} ({size(row.size_bytes)}, {row.what})?", abort=True)
    row.delete()
    typer.echo(f"Deleted {model}: {size(row.size_bytes)} are free again.")


def _rows() -> list[_Row]:
    return sorted((*_converted(), *_downloaded()), key=lambda row: -row.used_at)


def _converted() -> list[_Row]:
    from modelyard.hub import ConvertedModels

    converted = ConvertedModels()
    entries = converted.list()
    # The same model of two revisions has one file name.
    alike = Counter(entry.path.name for entry in entries)
    rows = []
    for entry in entries:
        names = (entry.path.name, f"{entry.key}/{entry.path.name}", entry.key)
        if alike[entry.path.name] > 1:
            names = (names[1], names[0], names[2])
        what = f"converted from {entry.source}"
        rows.append(_Row(names, what, entry.size_bytes, entry.used_at, partial(converted.delete, entry)))
    return rows


def _downloaded() -> list[_Row]:
    from modelyard.hub import Downloads

    downloads = Downloads()
    rows = []
    for found in downloads.list():
        what = "downloaded"
        if found.partial_bytes:
            whole = found.size_bytes - found.partial_bytes
            what = "downloaded, and the rest of a broken-off download" if whole else "broken-off download"
        delete = partial(downloads.delete, found.repo)
        rows.append(_Row((found.repo,), what, found.size_bytes, found.used_at, delete))
    return rows
