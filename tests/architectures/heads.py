"""Prediction heads (MTP) of published checkpoints: transformers neither computes nor writes them."""

from __future__ import annotations

from pathlib import Path


def add_heads(folder: Path, kind: str) -> None:
    """Write the heads of that kind into the checkpoint in ``folder``."""
