"""What an engine has computed and another can go on from: tokens with their KV state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KvState = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """Tokens and their KV state, as ``Context.save`` gives it. salt: of the request that they were computed for."""

    tokens: tuple[int, ...]
    kv: KvState
    salt: str = ""

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
