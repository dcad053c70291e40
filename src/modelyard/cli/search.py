"""``modelyard search``: finds models on the Hugging Face Hub, and says which quantisations fit this machine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from modelyard.cli.usage import UsageError

if TYPE_CHECKING:
    from modelyard.hub import Hub
    from modelyard.hub.select.quantisations import Quantisation

_LISTED_AT_ONCE: Final = 8

# What a model takes beside its weights, about: a context of some thousand tokens, and buffers.
_BESIDE_BYTES: Final = 500_000_000
_BESIDE_PART: Final = 1.1


@dataclass(frozen=True, slots=True)
class _Result:
    repo: str
    downloads: int
    quantisations: tuple[Quantisation, ...]


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="Words of the model's name.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", min=1, max=50, metavar="N", help="Number of repositories.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find models in GGUF on the Hugging Face Hub, the most downloaded first, with what fits this machine.

    What fits is judged by the size of the files. ``modelyard resolve`` computes the memory of one model exactly.
    """
    from modelyard.config import Config
    from modelyard.system.memory import available_bytes, budget_bytes, total_bytes
    from modelyard.yard.from_config import stores_of

    text = " ".join(words).strip()
    if not text:
        raise UsageError("search needs a word, such as: modelyard search qwen3 4b")
    results = _results(stores_of(Config()).hub, text, limit)
    room = budget_bytes(None, available_bytes(), total_bytes())
    if as_json:
        typer.echo(json.dumps([_json(result, room) for result in results], indent=2))
        return
    if not results:
        typer.echo(f"The hub has no model in GGUF for '{text}'.")
        return
    _print(results, room)


def _results(hub: Hub, words: str, limit: int) -> list[_Result]:
    from modelyard.errors import RepositoryUnavailable
    from modelyard.hub.select.quantisations import quantisations
    from modelyard.hub.sources.hub_id import HubId

    def listed(found: tuple[str, int]) -> _Result:
        repo, downloads = found
        try:
            return _Result(repo, downloads, tuple(quantisations(hub.list(HubId(repo)))))
        except RepositoryUnavailable:
            return _Result(repo, downloads, ())  # it was renamed or closed since the hub's index was made

    with ThreadPoolExecutor(_LISTED_AT_ONCE) as threads:
        return [result for result in threads.map(listed, hub.search(words, limit)) if result.quantisations]


def _fits(quantisation: Quantisation, room: int) -> bool:
    return quantisation.size_bytes * _BESIDE_PART + _BESIDE_BYTES <= room


def _print(results: list[_Result], room: int) -> None:
    from modelyard.cli.tables import print_table, size, table_console

    console = table_console()
    rows = []
    for result in results:
        fitting = [each for each in result.quantisations if _fits(each, room)]
        best = f"{fitting[0].label}, {size(fitting[0].size_bytes)}" if fitting else "none"
        every = ", ".join(f"{each.label} {size(each.size_bytes)}" for each in result.quantisations)
        rows.append((result.repo, f"{result.downloads:,}", best, every))
    print_table(console, ("Repository", "Downloads", "Best that fits", "All"), rows, right=("Downloads",), prose=True)
    example = next((result for result in results if _fits(result.quantisations[-1], room)), results[0])
    console.print(f"\n{size(room)} of memory are there for models. Chat with one: modelyard run {example.repo}")


def _json(result: _Result, room: int) -> dict[str, object]:
    return {
        "repository": result.repo,
        "downloads": result.downloads,
        "quantizations": [
            {"name": each.label, "size_bytes": each.size_bytes, "files": list(each.names), "fits": _fits(each, room)}
            for each in result.quantisations
        ],
    }
