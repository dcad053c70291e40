"""The KV cache of one engine, and the computations on it.

Hot path: ``Context.decode`` and ``Context.logits`` run once a step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama.adapter import Adapter
from modelyard.engine.llama.batch import Batch, EmbeddingBatch
from modelyard.engine.llama.context_limits import context_limits
from modelyard.engine.llama.context_params import ComputeSettings, context_params, create_context
from modelyard.engine.llama.control_vector import ControlVector, added, apply_directions
from modelyard.engine.llama.library import lib, reason
from modelyard.engine.llama.model import Model
from modelyard.engine.llama.projector import SpanEmbeddings
from modelyard.engine.windows import window_cells
from modelyard.errors import UnusableModel

_PARTIAL: Final = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


class Context:
    """The KV cache and the compute buffers of one engine, on the weights of ``model``.

    Args:
        model: the weights.
        compute: how it computes.
        length: limit of the KV cells, in tokens, shared by all sequences; rounded up as llama.cpp requires, and at most
            as many as the model has positions.
        cells: KV cells that it begins with; None: as many as ``length``.
        slots: sequences that the cache can tell apart.
        batch_tokens: limit of tokens in one step.
        step_tokens: limit of those that are computed at once; None: all.
        is_windowed: whether layers with a sliding window have cells for their windows alone, where that is less.

    Attributes:
        length: limit of its cells, which no sequence can outgrow.
        cells: KV cells that it has now.
        can_trim: whether its cells can be cut back to earlier tokens.
        has_short_windows: whether layers with a sliding window have fewer cells than the others now.
        allocated_bytes: memory of the cache and the outputs, as llama.cpp reports it.
        checkpoint_bytes: memory of the state of one sequence, as a checkpoint holds it; 0 where the memory can be cut
            back at any token.
        spared_bytes: memory of the cells that layers with a sliding window do without.
        device_bytes: memory of all its buffers, by device.
        kv_format: layout of a saved state.

    Raises:
        UnusableModel: llama.cpp cannot make it, most often for lack of memory.
    """

    DECODED: ClassVar[int] = 0
    CACHE_FULL: ClassVar[int] = 1

    def __init__(
        self,
        model: Model,
        compute: ComputeSettings,
        *,
        length: int,
        slots: int,
        batch_tokens: int,
        step_tokens: int | None = None,
        cells: int | None = None,
        is_windowed: bool = False,
    ) -> None:
        limits = context_limits(min(length, model.positions or length), slots, batch_tokens, step_tokens)
        has_windows = is_windowed and model.window > 0 and model.can_trim
        params = context_params(limits, slots, compute, is_windowed=has_windows)
        # llama.cpp reads these numbers for two architectures, and takes 32 and 1 for all others: wrong for Kimi K2.
        for name in ("yarn_beta_fast", "yarn_beta_slow"):
            if (value := model.architecture_number(f"rope.scaling.{name}")) is not None:
                setattr(params, name, value)
        self._model, self._params = model, params
        self.can_trim = model.can_trim
        self._slots = slots
        self._batch_tokens, self._step_tokens = batch_tokens, step_tokens
        self.kv_format = (
            f"K {params.type_k}, V {params.type_v}, unified {params.kv_unified}, windows full {params.swa_full}, "
            f"flash attention {compute.flash_attn}"
        )
        self._vocab_size = model.vocab_size
        self.length = min(limits.cells, model.positions or limits.cells)
        self._create(self.length if cells is None else cells)

    def _create(self, cells: int) -> None:
        limits = context_limits(min(cells, self.length), self._slots, self._batch_tokens, self._step_tokens)
        self._params.n_ctx = limits.cells
        created = create_context(self._model, self._params, limits.cells)
        self.pointer, self.allocated_bytes = created.pointer, created.allocated_bytes
        self.has_short_windows = not self._params.swa_full and created.last_cells < limits.cells
        self.checkpoint_bytes = created.recurrent_bytes // self._slots
        self.spared_bytes = 0
        if self.has_short_windows:
            self.checkpoint_bytes = created.last_bytes * self._model.window // created.last_cells
            self.spared_bytes = created.last_bytes * (limits.cells - created.last_cells) // created.last_cells
        self.device_bytes = created.device_bytes
        self._memory = lib.llama_get_memory(self.pointer)
        self._adapters: Sequence[tuple[Adapter | ControlVector, float]] = ()
        self._logits: npt.NDArray[np.float32] = np.empty((0, self._vocab_size), np.float32)
        self._logits_address = 0
        self.cells = min(int(lib.llama_n_ctx(self.pointer)), self.length)

    def has_short_windows_at(self, cells: int) -> bool:
        """Whether layers with a sliding window have fewer cells than the others in a context of ``cells``."""
        limits = context_limits(min(cells, self.length), self._slots, self._batch_tokens, self._step_tokens)
        in_windows = window_cells(
            self._model.window, cells=limits.cells, sequences=self._slots, step_tokens=limits.step
        )
        return not self._params.swa_full and in_windows < limits.cells

    def resize(self, cells: int) -> None:
        """Make it one of ``cells`` KV cells, at most ``length``; the content of all slots is lost.

        Raises:
            UnusableModel: llama.cpp cannot make it; it has as many cells as before.
            RuntimeError: llama.cpp cannot make one as large as before either; only ``free`` may be called then.
        """
        before = self.cells
        self.free()
        try:
            self._create(cells)
        except UnusableModel as refused:
            try:
                self._create(before)
            except UnusableModel as lost:
                raise RuntimeError(f"llama.cpp cannot make the context again: {lost}") from refused
            raise

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads from the next call on."""
        if threads != self._params.n_threads:
            self._params.n_threads = self._params.n_threads_batch = threads
            lib.llama_set_n_threads(self.pointer, threads, threads)

    @property
    def has_memory(self) -> bool:
        """Whether the model keeps a KV cache or a state, without which it cannot generate."""
        return bool(self._memory)

    def decode(self, batch: Batch, length: int) -> int:
        """Run the model on the first ``length`` tokens of ``batch``. Returns DECODED, CACHE_FULL or an error below 0.

        Returns when the device has finished.
        """
        with self._model.adapter_lock.computing():
            outcome = int(lib.llama_decode(self.pointer, batch.of_length(length)))
            lib.llama_synchronize(self.pointer)
        return outcome

    def use_adapters(self, adapters: Sequence[tuple[Adapter | ControlVector, float]]) -> bool:
        """Compute with ``adapters``, each with a scale, from the next call on; whether these are others than before.

        The first computation with others takes longer: llama.cpp plans its graphs and buffers again.
        """
        if adapters == self._adapters:
            return False
        loras = [(each.pointer, scale) for each, scale in adapters if isinstance(each, Adapter)]
        pointers = (lib.llama_adapter_lora_p_ctypes * len(loras))(*(pointer for pointer, _ in loras))
        scales = (ctypes.c_float * len(loras))(*(scale for _, scale in loras))
        lib.llama_set_adapters_lora(self.pointer, pointers, len(loras), scales)
        vectors = _vectors(adapters)
        if vectors != _vectors(self._adapters):
            apply_directions(self.pointer, added(vectors))
        self._adapters = adapters
        return True

    def decode_embeddings(self, embeddings: SpanEmbeddings, position: int, slot: int) -> int:
        """Run the model on an image span in ``slot``, its first token at ``position``; returns what ``decode`` returns.

        With causal attention the span may be longer than a step; otherwise all of its tokens see each other, and it
        must not be. Where it does not fit, a part of it may be in the cache.
        """
        self._check(slot)
        values, positions = embeddings.values, embeddings.positions_from(position)
        if not embeddings.is_causal:
            if len(values) > self._batch_tokens:
                raise ValueError(f"{len(values)} tokens that see each other do not fit {self._batch_tokens}")
            lib.llama_set_causal_attn(self.pointer, False)
        try:
            for start in range(0, len(values), self._batch_tokens):
                part = slice(start, start + self._batch_tokens)
                batch = EmbeddingBatch(values[part], positions[:, part], slot)
                with self._model.adapter_lock.computing():
                    outcome = int(lib.llama_decode(self.pointer, batch.struct))
                if outcome != self.DECODED:
                    return outcome
        finally:
            lib.llama_synchronize(self.pointer)
            if not embeddings.is_causal:
                lib.llama_set_causal_attn(self.pointer, True)
        return self.DECODED

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        """Return the logits of the tokens of the batch that asked for them, in order: a view of [rows, vocab_size].

        The view is valid until the next decode. ``rows`` is the number of these tokens.
        """
        values = lib.llama_get_logits(self.pointer)
        address = ctypes.addressof(values.contents)
        # Making a view costs more than finding the largest logit of a row.
        if address != self._logits_address or rows > len(self._logits):
            self._logits = np.ctypeslib.as_array(values, shape=(rows, self._vocab_size))
            self._logits_address = address
        return self._logits[:rows]

    def failure(self) -> str:
        """Return what llama.cpp logged for the last call that failed."""
        return reason()

    def first_position(self, slot: int) -> int:
        """Return the first position of ``slot`` that all layers still hold, of which those with a window lose some.

        It is -1 where the slot is empty. llama.cpp gives cells that a window has left behind to other tokens, also
        where others are free, and for all layers of a sliding window at once.

        Source: llama.cpp, src/llama-kv-cache.cpp, find_slot and apply_ubatch.
        """
        self._check(slot)
        return int(lib.llama_memory_seq_pos_min(self._memory, slot))

    def trim(self, slot: int, length: int) -> None:
        """Remove all tokens of ``slot`` from position ``length`` on."""
        lib.llama_memory_seq_rm(self._memory, slot, length if length else -1, -1)

    def share(self, source: int, target: int, length: int) -> None:
        """Share the first ``length`` positions of ``source`` with ``target``, which is empty; no data is copied."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def own_window(self, slot: int) -> None:
        """Have layers with a sliding window hold the window of ``slot``, and no more, in cells of its own.

        llama.cpp gives cells that two slots share to nobody else, also when the windows of both are past them.

        Raises:
            RuntimeError: llama.cpp has no cells for it.
        """
        self.restore_state(slot, self.save_state(slot))

    def merge(self, source: int, target: int, length: int) -> None:
        """Share the first ``length`` positions of ``source`` with ``target`` in place of its own."""
        lib.llama_memory_seq_rm(self._memory, target, 0, length)
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def state_bytes(self, slot: int) -> int:
        """Return the size in bytes of the saved state of ``slot``."""
        self._check(slot)
        return int(lib.llama_state_seq_get_size(self.pointer, slot))

    def save(self, slot: int) -> npt.NDArray[np.uint8]:
        """Return the KV state of ``slot``, which any context of the same weights and ``kv_format`` can restore.

        Raises:
            RuntimeError: llama.cpp cannot read it.
        """
        state = np.empty(self.state_bytes(slot), dtype=np.uint8)
        written = int(lib.llama_state_seq_get_data(self.pointer, _bytes_of(state), state.size, slot))
        if not written or written != state.size:
            raise RuntimeError(f"llama.cpp cannot save the state of a sequence: {reason()}")
        return state

    def restore(self, slot: int, state: npt.NDArray[np.uint8]) -> bool:
        """Restore a saved state into ``slot``, which must be empty and stays so on failure; whether it worked."""
        self._check(slot)
        read = int(lib.llama_state_seq_set_data(self.pointer, _bytes_of(state), state.size, slot))
        if read and read == state.size:
            return True
        # A restore that fails half-way leaves cells without content.
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return False

    def save_state(self, slot: int) -> npt.NDArray[np.uint8]:
        """Return the part of the KV state of ``slot`` that cannot be cut back: recurrent states and sliding windows.

        Raises:
            RuntimeError: llama.cpp cannot read it.
        """
        self._check(slot)
        size = int(lib.llama_state_seq_get_size_ext(self.pointer, slot, _PARTIAL))
        state = np.empty(size, dtype=np.uint8)
        written = int(lib.llama_state_seq_get_data_ext(self.pointer, _bytes_of(state), size, slot, _PARTIAL))
        if not written or written != size:
            raise RuntimeError(f"llama.cpp cannot save the state of a sequence: {reason()}")
        return state

    def restore_state(self, slot: int, state: npt.NDArray[np.uint8]) -> None:
        """Replace that part of the KV state of ``slot`` by a saved one, behind which the slot is then to be trimmed.

        Raises:
            RuntimeError: llama.cpp cannot restore it; what the slot holds is of no use any more.
        """
        self._check(slot)
        read = int(lib.llama_state_seq_set_data_ext(self.pointer, _bytes_of(state), state.size, slot, _PARTIAL))
        if not read or read != state.size:
            raise RuntimeError(f"llama.cpp cannot restore the state of a sequence: {reason()}")

    def all_states_bytes(self) -> int:
        """Return the size in bytes of the saved state of all slots together; cells that slots share count once."""
        return int(lib.llama_state_get_size(self.pointer))

    def save_all(self) -> npt.NDArray[np.uint8]:
        """Return the KV state of all slots, which this context can restore in any size that has room for its cells.

        Raises:
            RuntimeError: llama.cpp cannot read it.
        """
        state = np.empty(self.all_states_bytes(), dtype=np.uint8)
        written = int(lib.llama_state_get_data(self.pointer, _bytes_of(state), state.size))
        if not written or written != state.size:
            raise RuntimeError(f"llama.cpp cannot save the state of its context: {reason()}")
        return state

    def restore_all(self, state: npt.NDArray[np.uint8]) -> bool:
        """Restore what ``save_all`` returned; whether it worked. All slots are empty where it did not."""
        read = int(lib.llama_state_set_data(self.pointer, _bytes_of(state), state.size))
        if read and read == state.size:
            return True
        lib.llama_memory_clear(self._memory, True)
        return False

    def _check(self, slot: int) -> None:
        # llama.cpp would end the process.
        if not 0 <= slot < self._slots:
            raise ValueError(f"There is no slot {slot}: there are {self._slots}")

    def free(self) -> None:
        """Free the cache and the buffers."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            lib.llama_free(pointer)


def _bytes_of(state: npt.NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _vectors(adapters: Sequence[tuple[Adapter | ControlVector, float]]) -> list[tuple[ControlVector, float]]:
    return [(each, scale) for each, scale in adapters if isinstance(each, ControlVector)]
