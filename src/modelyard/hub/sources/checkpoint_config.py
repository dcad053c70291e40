"""Reads a checkpoint's ``config.json`` and the vision and audio towers that it describes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelyard.errors import UnusableModel
from modelyard.hub.sources.listing import Listing

if TYPE_CHECKING:
    from modelyard.hub.sources.huggingface import Hub

CONFIG: Final = "config.json"
_MAX_CONFIG_BYTES: Final = 2**22

# Keys of config.json under which checkpoints have the configuration of a tower.
# Source: llama.cpp, conversion/base.py, MmprojModel.get_vision_config and get_audio_config.
_VISION: Final = ("vision_config", "vision_encoder", "vit_config", "visual")
_AUDIO: Final = ("audio_config", "whisper_config", "audio_encoder", "speech_config", "encoder_config")
_INNER: Final = ("thinker_config",)

# Names that configurations of towers use for their sizes.
_WIDTH: Final = ("hidden_size", "embed_dim", "d_model", "width", "vt_hidden_size")
_LAYERS: Final = ("num_hidden_layers", "depth", "encoder_layers", "n_layers", "layers", "vt_num_hidden_layers")
_FEED_FORWARD: Final = ("intermediate_size", "encoder_ffn_dim", "ffn_dim", "vt_intermediate_size")
_F16_BYTES: Final = 2

# Weights of towers that timm makes, whose configuration has their name in place of their sizes.
# Source: timm, models/mobilenetv5.py, as counted by timm 1.0.
_NAMED_TOWERS: Final = {"mobilenetv5_300m_enc": 294_126_912}


@dataclass(frozen=True, slots=True)
class Towers:
    """The vision and audio towers of a checkpoint.

    Attributes:
        architectures: names by which the converter may know the towers; the first that it knows counts.
        has_vision, has_audio: which towers the checkpoint has.
        size_bytes: approximate size of the towers' weights in 16 bits.
    """

    architectures: tuple[str, ...]
    has_vision: bool
    has_audio: bool
    size_bytes: int

    @property
    def name(self) -> str:
        """The kinds of the towers, for messages."""
        names = (["vision"] if self.has_vision else []) + (["audio"] if self.has_audio else [])
        return " and ".join(names) + (" towers" if len(names) > 1 else " tower")


def read_config(hub: Hub, listing: Listing) -> dict[str, Any]:
    """Return the ``config.json`` of a folder or repository.

    Raises:
        UnusableModel: the file cannot be read, or is not a JSON object.
    """
    text = hub.read(listing, CONFIG, _MAX_CONFIG_BYTES)
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("it is no object")  # noqa: TRY004 (reported like JSON that does not parse)
    except ValueError as error:
        raise UnusableModel(f"'{listing.source}': Its {CONFIG} is not JSON: {error}. Download it again.") from error
    return config


def towers_of(config: Mapping[str, Any]) -> Towers | None:
    """Return the towers that ``config`` describes; None for a model of text alone. Pure."""
    vision = list(_configs(config, _VISION))
    audio = list(_configs(config, _AUDIO))
    if not vision and not audio:
        return None
    # A tower's own name takes precedence. Source: llama.cpp, conversion/base.py, get_model_architecture.
    named = [*(inner.get("architectures") for inner in vision), config.get("architectures")]
    architectures = tuple(str(names[0]) for names in named if isinstance(names, list) and names)
    size = sum(map(_size_bytes, (*vision, *audio)))
    return Towers(architectures, has_vision=bool(vision), has_audio=bool(audio), size_bytes=size)


def _configs(config: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Yield the configurations under one of ``keys``, in ``config`` or in a configuration nested in it."""
    for key in keys:
        if isinstance(inner := config.get(key), dict) and inner:
            yield inner
    for key in _INNER:
        if isinstance(inner := config.get(key), dict):
            yield from _configs(inner, keys)


def _size_bytes(tower: Mapping[str, Any]) -> int:
    """Return the size of a tower's layers in 16 bits: four square attention matrices, two of a feed-forward network."""
    if (weights := _NAMED_TOWERS.get(str(tower.get("architecture")))) is not None:
        return weights * _F16_BYTES
    width, layers = _number(tower, _WIDTH), _number(tower, _LAYERS)
    feed_forward = _number(tower, _FEED_FORWARD) or 4 * width
    return layers * (4 * width * width + 2 * width * feed_forward) * _F16_BYTES


def _number(tower: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((value for name in names if isinstance(value := tower.get(name), int)), 0)
