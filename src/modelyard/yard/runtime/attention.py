"""Whether a model's attention is fused, where its configuration leaves that open."""

from __future__ import annotations

from typing import Final

from modelyard.config import Config, Model
from modelyard.engine.hosts.device_list import may_have_accelerators
from modelyard.hub import POOLED_KINDS, ModelFiles
from modelyard.yard.memory.layer_shapes import key_width
from modelyard.yard.runtime.placements import may_use_devices, placement_of

# Heads up to so many values are faster without flash attention on a CPU: docs/performance.md.
_NARROW_HEAD: Final = 64


def flash_attention(config: Config, model: Model, files: ModelFiles) -> bool | None:
    """Return llama.cpp's setting: as configured, else False where the CPU is faster without, else None.

    llama.cpp's fused kernel for CPUs walks over the KV cache once for each head and token. With narrow heads it spends
    more on each cell than two products of matrices do. A quantised cache needs it.
    """
    runtime = config.runtime
    if runtime.flash_attn is not None or runtime.kv_type != "f16":
        return runtime.flash_attn
    if files.kind in POOLED_KINDS or files.projector_bytes:
        return None
    if not 0 < key_width(files.header) <= _NARROW_HEAD:
        return None
    has_devices = may_use_devices(placement_of(config, model)) and may_have_accelerators()
    return None if has_devices else False
