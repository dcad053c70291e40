"""Where checkpoints, tokenizers, conversions and results are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


class Unavailable(Exception):
    """Something that a comparison needs cannot be had here; the message says what, and what to do."""


def cache() -> Path:
    """The folder of everything that is kept, in the user's cache; $ARCHITECTURES_CACHE names another."""
    named = os.environ.get("ARCHITECTURES_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(user) / "modelyard-architectures"
