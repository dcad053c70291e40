"""Everything that an engine may be sent from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.protocol.requests import Cancel, Embed, Rank, SetShare, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId

if TYPE_CHECKING:
    from modelyard.protocol.kv_snapshot import KeptPrefixes
    from modelyard.protocol.suspended import SuspendedSequence


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a sequence that was suspended, on this engine or another of the same weights and settings.

    alone is as in Submit.
    """

    state: SuspendedSequence
    alone: bool = False

    @property
    def sequence(self) -> SequenceId:
        """Its number."""
        return self.state.sequence


@dataclass(frozen=True, slots=True)
class Restore:
    """Keep these prompts for reuse, as before the last Stop. Sent before any sequence."""

    kept: KeptPrefixes


Request = Submit | Embed | Rank | Tokenize | Resume

Message = Request | Cancel | Restore | SetShare | Stop
