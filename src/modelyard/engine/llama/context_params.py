"""Parameters that the contexts of all kinds of models share, and how contexts are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from modelyard.engine.llama.context_limits import ContextLimits
from modelyard.engine.llama.library import lib, log
from modelyard.engine.llama.log_lines import buffer_bytes, last_cache
from modelyard.engine.llama.model import Model
from modelyard.engine.llama.placing import allocated_by_device, load_failure
from modelyard.protocol.placement import DeviceBytes

KvType: TypeAlias = Literal["f16", "q8_0"]

_KV_TYPES: Final = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}
FLASH_ATTENTION: Final = {
    None: lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    False: lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """How a context computes, whatever its size.

    Attributes:
        threads: for decode and for prefill.
        kv_type: type of the numbers in the cache.
        flash_attn: None: where the device has it.
        kv_on_host: whether the cache, and attention with it, stays on the host also where layers are on devices.
    """

    threads: int
    kv_type: KvType = "f16"
    flash_attn: bool | None = None
    kv_on_host: bool = False


def context_params(limits: ContextLimits, slots: int, compute: ComputeSettings, *, is_windowed: bool = False) -> Any:
    """Return llama.cpp's parameters for a context whose sequences share one cache.

    Args:
        limits: sizes of the context.
        slots: sequences that it can tell apart.
        compute: how it computes.
        is_windowed: whether layers with a sliding window have cells for their windows alone.
    """
    params = lib.llama_context_default_params()
    params.type_k = params.type_v = _KV_TYPES[compute.kv_type]
    params.flash_attn_type = FLASH_ATTENTION[compute.flash_attn]
    params.n_ctx, params.n_batch, params.n_ubatch = limits.cells, limits.batch, limits.step
    params.n_seq_max = slots
    params.n_threads = params.n_threads_batch = compute.threads
    params.kv_unified = True
    # A full-size cache for sliding-window layers costs memory, and lets most prefixes be cut at any token.
    params.swa_full = not is_windowed
    params.no_perf = True
    params.offload_kqv = not compute.kv_on_host
    return params


@dataclass(frozen=True, slots=True)
class CreatedContext:
    """A context of llama.cpp.

    Attributes:
        pointer: to it.
        allocated_bytes: of its cache and its outputs.
        recurrent_bytes: the part of them that recurrent states take, of all sequences.
        last_cells, last_bytes: of the cache that was made last: in models with sliding windows that of their layers.
        device_bytes: of all its buffers, by device.
    """

    pointer: Any
    allocated_bytes: int
    recurrent_bytes: int
    last_cells: int
    last_bytes: int
    device_bytes: Mapping[str, DeviceBytes]


def create_context(model: Model, params: Any, length: int) -> CreatedContext:
    """Make a context of ``length`` tokens.

    Raises:
        UnusableModel: llama.cpp cannot make it, most often for lack of memory.
    """
    log.clear()
    with model.adapter_lock.computing():
        pointer = lib.llama_init_from_model(model.pointer, params)
    if not pointer:
        raise load_failure(f"llama.cpp cannot make a context of {length} tokens", model.placement)
    # Not "compute": it is reserved for the logits of every token of a step, and mostly never touched.
    allocated = buffer_bytes(log.buffers, "KV", "RS", "state", "output")
    recurrent = buffer_bytes(log.buffers, "RS")
    last_cells, last_bytes = last_cache(log.caches)
    by_device = allocated_by_device(log.buffers, model.placement)
    return CreatedContext(pointer, allocated, recurrent, last_cells, last_bytes, by_device)
