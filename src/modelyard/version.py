"""The version of Modelyard; the build reads it here."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
