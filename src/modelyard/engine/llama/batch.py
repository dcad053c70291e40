"""Batches: the input of a step of llama.cpp.

Hot path: ``Batch.fill`` runs once a step for each sequence.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama.library import lib


class Batch:
    """The tokens of one step, in memory that llama.cpp reads in place.

    capacity is in tokens. Every token belongs to one sequence.
    """

    __slots__ = ("_n_seq_id", "_seq_ids", "_struct", "logits", "positions", "slots", "tokens")

    def __init__(self, capacity: int) -> None:
        self.tokens: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.positions: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.slots: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.logits: npt.NDArray[np.int8] = np.zeros(capacity, np.int8)
        self._n_seq_id: npt.NDArray[np.int32] = np.ones(capacity, np.int32)
        # seq_id is an array of pointers, one per token: each points at the token's entry of ``slots`` for good.
        self._seq_ids = self.slots.ctypes.data + np.arange(capacity, dtype=np.uintp) * self.slots.itemsize
        fields: dict[str, Any] = {
            "token": self.tokens,
            "pos": self.positions,
            "n_seq_id": self._n_seq_id,
            "seq_id": self._seq_ids,
            "logits": self.logits,
        }
        self._struct = lib.llama_batch()
        for name, ctype in lib.llama_batch._fields_:
            if name in fields:
                setattr(self._struct, name, ctypes.cast(fields[name].ctypes.data, ctype))

    def fill(self, at: int, tokens: Sequence[int], position: int, slot: int, *, outputs: int) -> int:
        """Put ``tokens`` of one sequence at index ``at``, the first at ``position``; return the index behind them.

        outputs: number of the last of them whose logits are computed.
        """
        end = at + len(tokens)
        if end == at + 1:
            self.tokens[at] = tokens[0]
            self.positions[at] = position
        else:
            self.tokens[at:end] = tokens
            self.positions[at:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self.slots[at:end] = slot
        self.logits[at:end] = 0
        self.logits[end - outputs : end] = 1
        return end

    def of_length(self, length: int) -> Any:
        """Return the structure for ``llama_decode`` with the first ``length`` tokens."""
        self._struct.n_tokens = length
        return self._struct


class EmbeddingBatch:
    """Embeddings in the place of tokens, all of one sequence, without logits.

    Args:
        values: [tokens, width].
        positions: [1 or more, tokens]: positions in each dimension.
        slot: slot of the sequence.

    Attributes:
        struct: for ``llama_decode``; valid as long as this object.
    """

    __slots__ = ("_fields", "struct")

    def __init__(self, values: npt.NDArray[np.float32], positions: npt.NDArray[np.int32], slot: int) -> None:
        length = len(values)
        slots = np.full(1, slot, np.int32)
        self._fields: dict[str, Any] = {
            "embd": np.ascontiguousarray(values, np.float32),
            "pos": np.ascontiguousarray(positions, np.int32),
            "n_seq_id": np.ones(length, np.int32),
            "seq_id": np.full(length, slots.ctypes.data, np.uintp),
            "logits": np.zeros(length, np.int8),
            "": slots,
        }
        self.struct = lib.llama_batch()
        self.struct.n_tokens = length
        for name, ctype in lib.llama_batch._fields_:
            if name in self._fields:
                setattr(self.struct, name, ctypes.cast(self._fields[name].ctypes.data, ctype))
