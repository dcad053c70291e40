"""What leaves an engine to come back: sequences in the middle of their answers, and prompts worth keeping."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from modelyard.engine.answer import Answer
from modelyard.engine.messages import SequenceId
from modelyard.engine.sampler import Sampler
from modelyard.engine.sequence import Sequence

KvState = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """Tokens and their KV state, as ``Context.save`` gives it."""

    tokens: tuple[int, ...]
    kv: KvState

    def read(self) -> KvState:
        """The state, as what is yet to be copied gives it."""
        return self.kv


@dataclass(frozen=True, slots=True)
class KeptPrefixes:
    """The prompts that one engine keeps beyond its end, most recently used first.

    identity names the weights and settings under which they can be restored.
    """

    identity: str
    prompts: tuple[KeptPrompt, ...]

    @property
    def size_bytes(self) -> int:
        """Host memory that they hold."""
        return sum(prompt.kv.nbytes for prompt in self.prompts)


@dataclass(frozen=True, slots=True)
class SuspendedSequence:
    """Everything that a sequence needs to go on elsewhere. Whoever holds it owns its objects.

    Attributes:
        identity: of the weights and settings that it belongs to.
        tokens: the prompt and the answer so far; it has no slot.
        text: the text side of the answer.
        sampler: with the state of its random numbers and penalties.
        kept: the KV state of those tokens that were computed; None: they are computed again.
    """

    identity: str
    tokens: Sequence
    text: Answer
    sampler: Sampler
    kept: KeptPrompt | None

    @property
    def sequence(self) -> SequenceId:
        """Its number."""
        return self.tokens.id

    @property
    def size_bytes(self) -> int:
        """Host memory that its KV state holds."""
        return 0 if self.kept is None else self.kept.kv.nbytes

    def without_kv(self) -> SuspendedSequence:
        """The same, to be computed again."""
        return replace(self, kept=None)
