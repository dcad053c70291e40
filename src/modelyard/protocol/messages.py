"""Messages that an engine receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.protocol.requests import (
    Cancel,
    Embed,
    Rank,
    RefuseGrowth,
    Resize,
    SetAdapters,
    SetShare,
    Stop,
    Submit,
    Tokenize,
)
from modelyard.protocol.values import SequenceId

if TYPE_CHECKING:
    from modelyard.protocol.kv_snapshot import KeptPrefixes
    from modelyard.protocol.suspended import SuspendedSequence


@dataclass(frozen=True, slots=True)
class Resume:
    """Continue a suspended sequence, on this engine or another of the same weights and settings.

    alone: as in Submit.
    """

    state: SuspendedSequence
    alone: bool = False

    @property
    def sequence(self) -> SequenceId:
        """Number of the sequence."""
        return self.state.sequence


@dataclass(frozen=True, slots=True)
class Restore:
    """Keep these prompts for reuse, as an earlier engine did before its Stop. Sent before any sequence."""

    kept: KeptPrefixes


Request = Submit | Embed | Rank | Tokenize | Resume

Message = Request | Cancel | Restore | SetAdapters | SetShare | Resize | RefuseGrowth | Stop
