"""The weights of a model, which engines share."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from modelyard.engine.llama.adapter_lock import AdapterLock
from modelyard.engine.llama.copy_memory import CopyMemory
from modelyard.engine.llama.devices import has_amx_kernels
from modelyard.engine.llama.file_pages import FilePages
from modelyard.engine.llama.library import lib, log, start
from modelyard.engine.llama.log_lines import buffer_bytes, weights_bytes
from modelyard.engine.llama.placing import allocated_by_device, load_failure, set_placement
from modelyard.engine.llama.tensor_places import can_list_tensors, tensor_places
from modelyard.protocol.placement import HOST_NAME, ON_HOST, Placement

logger = logging.getLogger(__name__)


class Weights:
    """The weights of one GGUF file, or of its shards. Read-only: engines on several threads may share them.

    Args:
        paths: the file, or all shards in order.
        placement: where they are, with names of devices that exist.
        on_progress: called with the part read, 0 to 1; returning False cancels the load.
        are_repacked: whether weights are copied into layouts that kernels prefer, which takes as long as reading all;
            never where these kernels are those for AMX, which are not safe: see ``has_amx_kernels``.
        is_vocabulary_only: whether the weights stay on disk: texts can be tokenised, and nothing computed.
        end_tokens: the tokens that end an answer, if known: querying each token takes 0.5 us.
        is_dry: whether nothing is allocated and read, so that only sizes can be found out.

    Attributes:
        allocated_bytes: memory, with what is computed on in the mapped files. Where this llama.cpp has no list of its
            tensors, all of these files counts, and stays resident.
        device_bytes: the same by device.
        mapped_bytes: those of ``allocated_bytes`` that are pages of files, which ``rest`` gives back.
        adapter_lock: held where contexts compute, and where adapters change.

    Raises:
        UnusableModel: llama.cpp cannot load it; the message has llama.cpp's reason.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        on_progress: Callable[[float], bool],
        placement: Placement = ON_HOST,
        end_tokens: frozenset[int] | None = None,
        are_repacked: bool = True,
        is_vocabulary_only: bool = False,
        is_dry: bool = False,
    ) -> None:
        start()
        params = lib.llama_model_default_params()
        params.vocab_only = is_vocabulary_only
        params.use_extra_bufts = are_repacked and not has_amx_kernels()
        # llama.cpp reads from these arrays while it loads.
        arrays = set_placement(params, placement)
        if is_dry:
            # llama.cpp asserts that no file is mapped.
            params.no_alloc, params.load_mode = True, lib.LLAMA_LOAD_MODE_NONE
        self._pages = FilePages(paths)
        memory = CopyMemory()
        copied_bytes: int | None = None

        def progress(fraction: float) -> bool:
            nonlocal copied_bytes
            if copied_bytes is None:
                # All buffers are allocated before the first tensor is read.
                copied_bytes = weights_bytes(log.buffers)[1]
            if not placement.mlock:
                # Locked pages would have to be unlocked, also those that are computed on.
                self._pages.on_progress(fraction, copied_bytes)
            memory.on_progress(fraction, copied_bytes)
            return on_progress(fraction)

        callback = lib.llama_progress_callback(lambda fraction, _: progress(fraction))
        params.progress_callback = callback
        log.clear()
        try:
            if len(paths) == 1:
                self.pointer = lib.llama_model_load_from_file(bytes(paths[0]), params)
            else:
                names = (ctypes.c_char_p * len(paths))(*(bytes(path) for path in paths))
                self.pointer = lib.llama_model_load_from_splits(names, len(paths), params)
        finally:
            memory.end()
        del arrays
        if not self.pointer:
            raise load_failure(f"llama.cpp cannot load {paths[0].name}", placement)
        self.placement = placement
        self.adapter_lock = AdapterLock()
        self.allocated_bytes = buffer_bytes(log.buffers, "model")
        self.device_bytes = allocated_by_device(log.buffers, placement)
        self.mapped_bytes = 0
        if (mapped := weights_bytes(log.buffers)[0]) and can_list_tensors():
            self._keep_computed(mapped)
        if log.locks:
            logger.warning("%s cannot be locked in memory in full: %s", paths[0].name, log.locks[0])
        vocab = lib.llama_model_get_vocab(self.pointer)
        if end_tokens is None:
            tokens = range(int(lib.llama_vocab_n_tokens(vocab)))
            end_tokens = frozenset(token for token in tokens if lib.llama_vocab_is_eog(vocab, token))
        self.end_tokens = end_tokens

    def _keep_computed(self, reported_bytes: int) -> None:
        """Give back the pages of files that are not computed on, of the ``reported_bytes`` that llama.cpp counts."""
        kept = self._pages.keep(tensor_places(self.pointer))
        if kept is None:
            return
        self.mapped_bytes = kept
        self.allocated_bytes += kept - reported_bytes
        host = self.device_bytes[HOST_NAME]
        self.device_bytes[HOST_NAME] = replace(host, weights=host.weights + kept - reported_bytes)

    def rest(self) -> None:
        """Give back the pages of files that are computed on, while nobody computes: the next use maps them again."""
        self._pages.rest()

    def wake(self, on_progress: Callable[[float], bool]) -> bool:
        """Map pages again that ``rest`` gave back; whether that was completed.

        Args:
            on_progress: called with the part that was mapped, 0 to 1; returning False ends it.
        """
        return self._pages.wake(on_progress)

    def free(self) -> None:
        """Free the weights. All contexts on them must be freed first."""
        lib.llama_model_free(self.pointer)
