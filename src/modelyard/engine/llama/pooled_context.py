"""A context that pools: it computes one vector per text.

Hot path: ``PooledContext.embed`` runs once for every batch of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama.batch import Batch
from modelyard.engine.llama.context_limits import context_limits
from modelyard.engine.llama.context_params import ComputeSettings, context_params, create_context
from modelyard.engine.llama.library import lib, reason
from modelyard.engine.llama.model import Model

Pooling = Literal["mean", "cls", "last", "rank"]

# Source: llama.h, enum llama_pooling_type; 0 is none.
POOLINGS: dict[int, Pooling] = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
_NUMBERS = {name: number for number, name in POOLINGS.items()}


class PooledContext:
    """The compute buffers of one engine that embeds, and its KV cache where the model is a decoder.

    Args:
        model: the weights.
        compute: how it computes.
        pooling: how the vectors of tokens become one vector of the text.
        length: KV cells, in tokens, if the model has any; rounded up as llama.cpp requires.
        slots: inputs that are computed at once.
        step_tokens: limit of tokens in one call of llama.cpp. A longer input is computed in parts, which only causal
            attention and the pooling "last" allow.

    Attributes:
        allocated_bytes: memory of the cache and the outputs, as llama.cpp reports it.
        device_bytes: memory of all its buffers, by device.
        dimensions: floats of a vector.

    Raises:
        UnusableModel: llama.cpp cannot make it, most often for lack of memory.
    """

    def __init__(
        self,
        model: Model,
        compute: ComputeSettings,
        *,
        pooling: Pooling,
        length: int,
        slots: int,
        step_tokens: int,
    ) -> None:
        limits = context_limits(length, slots, step_tokens)
        params = context_params(limits, slots, compute)
        params.embeddings = True
        params.pooling_type = _NUMBERS[pooling]
        created = create_context(model, params, length)
        self.pointer, self.allocated_bytes = created.pointer, created.allocated_bytes
        self.device_bytes = created.device_bytes
        self.pooling = pooling
        self.slots = slots
        self.step_tokens = step_tokens
        self._threads = compute.threads
        self._adapter_lock = model.adapter_lock
        self.dimensions = model.scores if pooling == "rank" else model.dimensions
        self._memory = lib.llama_get_memory(self.pointer)
        self._compute = lib.llama_encode if model.is_encoder_with_memory else lib.llama_decode
        self._batch = Batch(step_tokens)

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads from the next call on."""
        if threads != self._threads:
            self._threads = threads
            lib.llama_set_n_threads(self.pointer, threads, threads)

    @property
    def has_memory(self) -> bool:
        """Whether the model keeps a KV cache or a state; a model without is an encoder."""
        return bool(self._memory)

    def embed(self, inputs: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return the pooled vectors of ``inputs``, token ids each: [len(inputs), dimensions], as llama.cpp gives them.

        Raises:
            ValueError: there are more inputs than slots.
            RuntimeError: llama.cpp cannot compute them.
        """
        if len(inputs) > self.slots:
            # llama.cpp would end the process.
            raise ValueError(f"There are {len(inputs)} inputs, but only {self.slots} slots")
        vectors = np.empty((len(inputs), self.dimensions), np.float32)
        at = 0
        ended: list[int] = []
        for slot, tokens in enumerate(inputs):
            position = 0
            while position < len(tokens):
                part = tokens[position : position + self.step_tokens - at]
                if not part:
                    self._step(at, ended, vectors)
                    at, ended = 0, []
                    continue
                at = self._batch.fill(at, part, position, slot, outputs=len(part))
                position += len(part)
            ended.append(slot)
        self._step(at, ended, vectors)
        if self._memory:
            lib.llama_memory_clear(self._memory, False)
        return vectors

    def _step(self, length: int, ended: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        """Compute ``length`` tokens, and store the vectors of the slots whose last token is among them."""
        with self._adapter_lock.computing():
            outcome = int(self._compute(self.pointer, self._batch.of_length(length)))
        if outcome:
            raise RuntimeError(f"llama.cpp could not embed {length} tokens ({outcome}): {reason()}")
        lib.llama_synchronize(self.pointer)
        for slot in ended:
            vector = lib.llama_get_embeddings_seq(self.pointer, slot)
            vectors[slot] = np.ctypeslib.as_array(vector, shape=(self.dimensions,))

    def free(self) -> None:
        """Free the cache and the buffers."""
        lib.llama_free(self.pointer)
