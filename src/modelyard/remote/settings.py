"""The settings of a model that other servers have."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard.protocol.prompts import Sampling


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Which servers have a model, and how they are asked.

    Attributes:
        name: id of the model here.
        addresses: base URLs such as "http://host:1234/v1", without a slash at the end.
        model: its name there.
        api_key: the key that the servers ask for; "": none.
        timeout_s: seconds in which a server may send nothing while it is expected to.
        sampling: defaults of requests; what is None is left to the servers.
    """

    name: str
    addresses: tuple[str, ...]
    model: str
    api_key: str = field(default="", repr=False)
    timeout_s: float = 300.0
    sampling: Sampling = field(default_factory=Sampling)
