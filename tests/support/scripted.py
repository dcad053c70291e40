"""Has a small model write what a large one would: a grammar that leaves it one text."""

from __future__ import annotations

import json
from typing import Any


def says(text: str) -> dict[str, Any]:
    """The field ``grammar`` of a request whose answer is to be ``text``, reasoning and calls included."""
    return {"type": "llguidance", "value": {"grammars": [{"lark_grammar": f"start: {json.dumps(text)}"}]}}
