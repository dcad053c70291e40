"""Why an architecture differs or is not served, in words: what the comparison cannot tell by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REASONS: Final[Mapping[str, str]] = {}
