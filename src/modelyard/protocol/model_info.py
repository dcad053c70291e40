"""A model as its engine knows it, once it is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """What an engine knows of its model once it is loaded.

    Attributes:
        architecture: as its file says, such as "llama".
        context_length: tokens that one sequence may hold.
        size_bytes: of the weights, as the file has them.
        can_see, can_hear: whether it takes images, and sound.
        can_reason: whether its answers have reasoning before them that is told apart.
        can_fill: whether it fills gaps in text.
        weights_key: equal for engines that share their weights.
        weights_bytes, context_bytes: memory that llama.cpp allocated for the weights, and for the KV cache and the
            outputs of this engine.
        identity: of weights and settings: equal where one engine's KV states can be restored in the other.
        is_isolated: whether its engine has a process of its own.
        dimensions: floats of a vector that it embeds a text in; 0 where it does something else.
    """

    context_length: int
    quantization: str
    size_bytes: int
    fingerprint: str
    can_chat: bool
    architecture: str = ""
    weights_bytes: int = 0
    context_bytes: int = 0
    weights_key: str = ""
    dimensions: int = 0
    can_see: bool = False
    can_hear: bool = False
    can_reason: bool = False
    can_fill: bool = False
    identity: str = ""
    is_isolated: bool = False
