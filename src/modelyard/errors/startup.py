"""Errors of model files, of the listening address and of llama.cpp's libraries."""

from __future__ import annotations

from typing import Literal

from modelyard.errors.base import MessageError, ModelyardError
from modelyard.errors.configuration import ConfigError


class UnusableModels(ConfigError):
    """Models of a configuration are unusable: their files are missing, damaged, ambiguous or not supported."""


class UnusableModel(MessageError):
    """Files of a model are missing, damaged, ambiguous or not supported."""

    code = "unusable_model"


class OutOfDeviceMemory(UnusableModel):
    """A device could not allocate what a model needs there."""

    code = "out_of_device_memory"


class ConversionFailed(UnusableModel):
    """llama.cpp's converter or quantiser does not support the files; the machine is not at fault."""

    code = "conversion_failed"


class RepositoryUnavailable(UnusableModel):
    """A repository of the hub is not available."""

    code = "repository_unavailable"

    def __init__(self, why: Literal["missing", "gated", "unreachable", "offline"], message: str) -> None:
        super().__init__(message)
        self.args = (why, message)
        self.why = why


class PortUnavailable(ModelyardError):
    """The address cannot be listened on.

    Attributes:
        advice: what to do, in the words of the command line unless the address comes from elsewhere.
    """

    code = "port_unavailable"
    advice = "Choose another address with --host or --port."

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host, self.port, self.reason = host, port, reason

    def __str__(self) -> str:
        return f"Cannot listen on {self.host}:{self.port}: {self.reason}. {self.advice}"


class LlamaCppUnusable(ModelyardError):
    """The installed llama.cpp cannot be loaded.

    Attributes:
        reason: why, in the words of the system's loader.
    """

    code = "llama_cpp_unusable"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"llama.cpp cannot be loaded: {self.reason.rstrip('.')}. `modelyard doctor` has the command that builds it "
            "for this machine."
        )
