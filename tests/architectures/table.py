"""All architectures that generate text, by name."""

from __future__ import annotations

from typing import Final

from architectures.dense import DENSE
from architectures.experts import WITH_EXPERTS
from architectures.recurrent import RECURRENT
from architectures.shapes import Architecture

ARCHITECTURES: Final[dict[str, Architecture]] = {one.name: one for one in (*DENSE, *WITH_EXPERTS, *RECURRENT)}
