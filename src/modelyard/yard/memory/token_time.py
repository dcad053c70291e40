"""About how long a model computes a token in a placement. Pure.

A token reads all weights that it uses, and the cache of the tokens before it; computing itself takes less time than
reading, for one sequence. Only the order of placements and their rough ratio matter: the residency weighs a faster
placement against what has to go for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from modelyard.protocol.placement import HOST_NAME, Placement
from modelyard.yard.memory.device_pools import HOST_SPEED, Speed
from modelyard.yard.memory.layer_placement import LayerPlacement
from modelyard.yard.memory.placed_footprint import PlacedModel


def token_seconds(model: PlacedModel, placement: Placement, speeds: Mapping[str, Speed]) -> float:
    """Return the seconds that a token takes at half of the context: reading on each device, and crossings between them.

    Args:
        model: that computes.
        placement: with names of devices, and with parts for several.
        speeds: of the devices, by name; of the host unless it is named.
    """
    layers = LayerPlacement(model.header, placement)
    read: Counter[str] = Counter(model.weights.read_bytes(layers))
    for number, size in enumerate(model.cache_bytes):
        read[layers.cache(number)] += size // 2
    known = {HOST_NAME: HOST_SPEED, **speeds}
    reading_s = sum(size / known[place].bytes_per_s for place, size in read.items())
    return reading_s + _crossing_seconds(model, layers, known)


def _crossing_seconds(model: PlacedModel, layers: LayerPlacement, speeds: Mapping[str, Speed]) -> float:
    """Return the seconds that activations take from place to place, from the token on the host to its logits there."""
    count = len(model.cache_bytes)
    stops = [HOST_NAME]
    for number in range(count):
        place = layers.layer(number)
        stops += [place, layers.cache(number), place, layers.experts(number), place]
    stops += [layers.layer(count), HOST_NAME]
    return sum(
        max(speeds[before].crossing_s, speeds[after].crossing_s) for before, after in pairwise(stops) if before != after
    )
