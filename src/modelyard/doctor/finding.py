"""The outcome of a check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check.

    Attributes:
        name: a stable name, for programs.
        label: a name for readers.
        value: what was found, for readers.
        verdict: "problem" where it makes serving impossible, "note" where something could be better.
        advice: what to do; "" for nothing.
        facts: the numbers behind it, for programs; sizes in bytes.
        command: a shell command that follows the advice; "" for none.
    """

    name: str
    label: str
    value: str
    verdict: Verdict = "ok"
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
