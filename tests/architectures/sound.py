"""Sound: families of models that hear, and what compares each of them with transformers.

A family is entered with a function that makes its checkpoint in a folder, serves it, and says in a few words what came
of it: "right", or what differs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

SOUND: Final[dict[str, Callable[[str, Path], str]]] = {}
