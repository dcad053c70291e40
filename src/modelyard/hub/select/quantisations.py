"""Lists the quantisations of a model in GGUF that a repository has. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelyard.hub.select.gguf import Shard, gguf_models
from modelyard.hub.sources.listing import Listing
from modelyard.hub.sources.quant_labels import label_in


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A model in GGUF.

    Attributes:
        label: its quantisation as its name says, such as "Q4_K_M"; the name of the file where that says none.
        names: its files.
        size_bytes: their size; 0 where it is not known.
    """

    label: str
    names: tuple[str, ...]
    size_bytes: int


def quantisations(listing: Listing) -> list[Quantisation]:
    """Return the models in GGUF of a repository, the largest first."""
    names = listing.names
    found = [_shards(name, names) for name in gguf_models(names)]
    return sorted(
        (
            Quantisation(label_in(files[0]) or files[0].removesuffix(".gguf"), files, listing.size_of(files))
            for files in found
        ),
        key=lambda each: -each.size_bytes,
    )


def _shards(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the shards of a model that are there, by the first of them."""
    shard = Shard.parse(name)
    if shard is None:
        return (name,)
    wanted = {shard.sibling(number) for number in range(1, shard.count + 1)}
    return tuple(each for each in names if each in wanted)
