"""A builder of the models of a TOML file."""

from __future__ import annotations

from pathlib import Path

from modelyard.config import Config, load_config
from modelyard.errors import ConfigError
from modelyard.inprocess.buildable import Buildable


class ConfigFile(Buildable):
    """All models of a TOML file, as ``modelyard from-config`` serves them."""

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path):
            raise ConfigError(type(self).__name__, [f"path must be a text or a path, not {path!r}."])
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    def config(self) -> Config:
        """Read the file and return its configuration.

        Raises:
            ConfigError: the file cannot be read or is invalid; the error lists every problem.
        """
        return load_config(self._path)


def from_config(path: str | Path) -> ConfigFile:
    """Return a builder of the models of a TOML file: ``from_config("models.toml").build()`` loads them."""
    return ConfigFile(path)
