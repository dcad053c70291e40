"""Prompts with their KV state, which another engine of the same weights and settings can restore."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KvState = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """Tokens and their KV state.

    Attributes:
        tokens: token ids; those of images are below 0.
        kv: as ``Context.save`` returns it, or ``Context.save_state`` for a checkpoint.
        salt: the cache salt of the request.
        is_checkpoint: whether it is a checkpoint, which is of use beside other prompts that begin with its tokens.
    """

    tokens: tuple[int, ...]
    kv: KvState
    salt: str = ""
    is_checkpoint: bool = False

    def read(self) -> KvState:
        """Return the state; the disk cache also stores prompts whose ``read`` copies the state on demand."""
        return self.kv


@dataclass(frozen=True, slots=True)
class KeptPrefixes:
    """The prompts that outlive one engine, most recently used first.

    identity: the weights and settings under which they can be restored.
    """

    identity: str
    prompts: tuple[KeptPrompt, ...]

    @property
    def size_bytes(self) -> int:
        """Host memory of all KV states."""
        return sum(prompt.kv.nbytes for prompt in self.prompts)
