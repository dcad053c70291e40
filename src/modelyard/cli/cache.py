"""``modelyard cache``: what converted and downloaded models take on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from modelyard.errors import UnusableModel

cache = typer.Typer(help="Show and delete converted and downloaded models.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    what: str
    size_bytes: int
    used_at: float


@cache.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
    """List converted and downloaded models, the one that was used last first."""
    import json

    rows = sorted((*_converted(), *_downloaded()), key=lambda row: -row.used_at)
    if as_json:
        facts = [
            {"name": row.name, "what": row.what, "size_bytes": row.size_bytes, "used_at": row.used_at} for row in rows
        ]
        typer.echo(json.dumps(facts, indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Model", no_wrap=True)
    table.add_column("What", no_wrap=True)
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("Last used", no_wrap=True)
    for row in rows:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.used_at))
        table.add_row(row.name, row.what, f"{row.size_bytes / 1e6:,.0f} MB", used)
    console.print(table)
    total = sum(row.size_bytes for row in rows)
    console.print(f"\n{len(rows)} models, {total / 1e9:,.1f} GB. Delete one: modelyard cache delete MODEL")


@cache.command("delete")
def delete_model(
    model: Annotated[str, typer.Argument(help="As the list shows it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a converted model, or a repository with all of its downloaded revisions."""
    from modelyard.hub import ConvertedModels

    converted = ConvertedModels()
    entries = [entry for entry in converted.list() if model in (entry.path.name, entry.key)]
    downloads = [row for row in _downloaded() if row.name == model]
    if not entries and not downloads:
        known = ", ".join(row.name for row in (*_converted(), *_downloaded())) or "nothing"
        raise UnusableModel(f"'{model}' is not in the cache. There is: {known}.")
    size = sum(entry.size_bytes for entry in entries) + sum(row.size_bytes for row in downloads)
    if not yes:
        typer.confirm(f"Delete {model} ({size / 1e6:,.0f} MB)?", abort=True)
    for entry in entries:
        converted.delete(entry)
    if downloads:
        _delete_download(model)
    typer.echo(f"Deleted {model}: {size / 1e6:,.0f} MB are free again.")


def _converted() -> list[_Row]:
    from modelyard.hub import ConvertedModels

    return [
        _Row(entry.path.name, f"converted from {entry.source}", entry.size_bytes, entry.used_at)
        for entry in ConvertedModels().list()
    ]


def _downloaded() -> list[_Row]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return [_Row(repo.repo_id, "downloaded", repo.size_on_disk, repo.last_accessed) for repo in repos]


def _delete_download(repo_id: str) -> None:
    from huggingface_hub import scan_cache_dir

    scan = scan_cache_dir()
    revisions = [revision.commit_hash for repo in scan.repos if repo.repo_id == repo_id for revision in repo.revisions]
    scan.delete_revisions(*revisions).execute()
