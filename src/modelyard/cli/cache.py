"""``modelyard cache``: lists and deletes converted and downloaded models on disk."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from modelyard.cli.command_line import CommandGroup, SingleCommand
from modelyard.cli.messages import print_result
from modelyard.errors import UnusableModel
from modelyard.system.quantities import count_text

cache = typer.Typer(
    cls=CommandGroup,
    help="List and delete converted and downloaded models.",
    add_completion=False,
    no_args_is_help=True,
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A model in one of the caches.

    Attributes:
        names: names by which the model can be deleted; the first is shown.
        description: how the model came into the cache, such as "downloaded".
        size_bytes: size on disk.
        used_at: time of the last use, in seconds since the epoch.
        delete: deletes the model.
    """

    names: tuple[str, ...]
    description: str
    size_bytes: int
    used_at: float
    delete: Callable[[], None]


@cache.command("list", cls=SingleCommand)
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List converted and downloaded models, the most recently used first."""
    rows = _rows()
    if as_json:
        facts = [
            {"name": row.names[0], "what": row.description, "size_bytes": row.size_bytes, "used_at": row.used_at}
            for row in rows
        ]
        typer.echo(json.dumps(facts, indent=2))
        return
    if not rows:
        typer.echo("Nothing is in the cache.")
        return
    from modelyard.cli.tables import print_table, size, table_console

    console = table_console()
    print_table(
        console,
        ("Model", "Size", "Last used", "What"),
        [
            (
                row.names[0],
                size(row.size_bytes),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(row.used_at)),
                row.description,
            )
            for row in rows
        ],
        right=("Size",),
        prose=True,
    )
    models = count_text(len(rows), "model")
    console.print(f"\n{models}, {size(sum(row.size_bytes for row in rows))}. Delete one: modelyard cache delete MODEL")


def _cached_names() -> list[str]:
    return [row.names[0] for row in _rows()]


@cache.command("delete", cls=SingleCommand)
def delete_model(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of the model in the list.", autocompletion=_cached_names),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without confirmation.")] = False,
) -> None:
    """Delete a converted model, or all downloaded revisions of a repository."""
    remove(model, yes=yes)


def remove(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name of the model in the list of modelyard cache list; org/name:Q4_K_M is one of its files.",
            autocompletion=_cached_names,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without confirmation.")] = False,
) -> None:
    """Delete a downloaded model, or one quantisation of it, or a converted model.

    Models of Ollama, LM Studio and other programs are deleted by these.
    """
    from modelyard.cli.tables import size
    from modelyard.config.model_reference import parse_model_reference

    rows = _rows()
    reference = parse_model_reference(model)
    if reference.kind == "hub" and model not in {name for row in rows for name in row.names}:
        model = reference.source
        if reference.quant is not None:
            _remove_quantisation(reference.source, reference.quant, yes=yes)
            return
    elif reference.kind == "ollama":
        raise UnusableModel(
            f"'{model}' is Ollama's, and Modelyard changes nothing there. Write: ollama rm {reference.id}"
        )
    matches = [row for row in rows if model in row.names]
    if len(matches) > 1:
        names = ", ".join(row.names[0] for row in matches)
        raise UnusableModel(f"'{model}' is {len(matches)} models: {names}. Name one.")
    if not matches:
        known = ", ".join(row.names[0] for row in rows) or "nothing"
        raise UnusableModel(f"'{model}' is not in the cache. There is: {known}.")
    (row,) = matches
    if not yes:
        typer.confirm(f"Delete {model} ({size(row.size_bytes)}, {row.description})?", abort=True)
    row.delete()
    print_result(f"Deleted {model}: {size(row.size_bytes)} are free again.")


def _remove_quantisation(repo: str, quant: str, *, yes: bool) -> None:
    """Delete the files of one quantisation of a repository; the others stay."""
    from modelyard.cli.tables import size
    from modelyard.hub import Downloads, choose_gguf

    downloads = Downloads()
    names = downloads.files(repo)
    if not any(name.lower().endswith(".gguf") for name in names):
        raise UnusableModel(f"'{repo}' is not in the cache with a file in GGUF. `modelyard cache list` shows what is.")
    chosen = choose_gguf(names, quant).names
    if not yes:
        typer.confirm(f"Delete {', '.join(chosen)} of {repo}?", abort=True)
    freed = downloads.delete_files(repo, chosen)
    print_result(f"Deleted {', '.join(chosen)} of {repo}: {size(freed)} are free again.")


def _rows() -> list[_Row]:
    return sorted((*_converted(), *_downloaded()), key=lambda row: -row.used_at)


def _converted() -> list[_Row]:
    from modelyard.hub import ConvertedModels

    converted = ConvertedModels()
    entries = converted.list()
    # Conversions of two revisions of a model have the same file name.
    name_counts = Counter(entry.path.name for entry in entries)
    rows = []
    for entry in entries:
        names = (entry.path.name, f"{entry.key}/{entry.path.name}", entry.key)
        if name_counts[entry.path.name] > 1:
            names = (names[1], names[0], names[2])
        description = f"converted from {entry.source}"
        rows.append(_Row(names, description, entry.size_bytes, entry.used_at, partial(converted.delete, entry)))
    return rows


def _downloaded() -> list[_Row]:
    from modelyard.hub import Downloads

    downloads = Downloads()
    rows = []
    for download in downloads.list():
        description = "downloaded"
        if download.partial_bytes:
            complete_bytes = download.size_bytes - download.partial_bytes
            description = (
                "downloaded, and the rest of a broken-off download" if complete_bytes else "broken-off download"
            )
        delete = partial(downloads.delete, download.repo)
        rows.append(_Row((download.repo,), description, download.size_bytes, download.used_at, delete))
    return rows
