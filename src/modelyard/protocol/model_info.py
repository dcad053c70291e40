"""Properties of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard.protocol.placement import DeviceBytes
from modelyard.protocol.prompts import Sampling


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """Properties of a model that its engine reports once it is loaded.

    Attributes:
        architecture: name in the model's file, such as "llama".
        context_length: tokens that one sequence may hold; None: not known, because another server has the model.
        size_bytes: size of the weights in the file.
        can_see, can_hear: whether it takes images, and sound.
        can_reason: whether the reasoning in its answers is separated from the content.
        can_fill: whether it fills gaps in text.
        weights_key: equal for engines that share their weights.
        weights_bytes, context_bytes: memory that llama.cpp allocated for the weights, and for the KV cache and the
            outputs of this engine.
        mapped_bytes: those of ``weights_bytes`` that are pages of files, and are given back while it is parked.
        device_bytes: what llama.cpp allocated on each device, by its name, and on the host as "host".
        identity: weights and settings; engines with equal identities can restore each other's KV states.
        is_isolated: whether its engine has a process of its own.
        dimensions: length of an embedding; 0 if the model does not embed.
        chat_template: Jinja source; "" where it has none.
        begin_token, end_token: texts of the tokens that begin and end a sequence; "" where it has none.
        sampling: defaults of its requests, all set.
    """

    context_length: int | None
    quantization: str
    size_bytes: int
    fingerprint: str
    can_chat: bool
    architecture: str = ""
    weights_bytes: int = 0
    mapped_bytes: int = 0
    context_bytes: int = 0
    device_bytes: tuple[tuple[str, DeviceBytes], ...] = ()
    weights_key: str = ""
    dimensions: int = 0
    can_see: bool = False
    can_hear: bool = False
    can_reason: bool = False
    can_fill: bool = False
    identity: str = ""
    is_isolated: bool = False
    chat_template: str = field(default="", repr=False)
    begin_token: str = ""
    end_token: str = ""
    sampling: Sampling = field(default_factory=Sampling)
