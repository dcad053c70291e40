"""The version of Modelyard; the build reads it here, so the assignment carries no annotation."""

from __future__ import annotations

__version__ = "0.1.0"
