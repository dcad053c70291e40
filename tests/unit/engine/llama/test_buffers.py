"""How much memory llama.cpp says that it allocated, in lines that it logged."""

from __future__ import annotations

from modelyard.engine.llama.log_lines import buffer_bytes, buffers_of, failed_allocations, last_cache, weights_bytes
from modelyard.protocol.placement import DeviceBytes

MIB = 2**20

GEMMA = [
    "load_tensors:   CPU_Mapped model buffer size =   235.16 MiB\n",
    "load_tensors:   CPU_REPACK model buffer size =    12.66 MiB\n",
    "llama_context:        CPU  output buffer size =     8.00 MiB\n",
    "llama_kv_cache:        CPU KV buffer size =    24.00 MiB\n",
    "llama_kv_cache: size =   24.00 MiB (  8192 cells,   3 layers, 16/1 seqs)\n",
    "llama_kv_cache:        CPU KV buffer size =   120.00 MiB\n",
    "llama_kv_cache: size =  120.00 MiB (  8192 cells,  15 layers, 16/1 seqs)\n",
    "sched_reserve:        CPU compute buffer size =   514.50 MiB\n",
]


def test_buffers_of_one_kind_are_added_up() -> None:
    assert buffer_bytes(GEMMA, "model") == round(247.82 * MIB)
    assert buffer_bytes(GEMMA, "compute") == round(514.5 * MIB)


def test_the_cache_of_layers_with_a_window_is_the_last() -> None:
    assert last_cache(GEMMA) == (8192, 120 * MIB)
    assert last_cache([]) == (0, 0)


def test_summaries_do_not_count_the_same_cells_again() -> None:
    assert buffer_bytes(GEMMA, "KV", "output") == 152 * MIB


def test_recurrent_states_and_accelerators_count_too() -> None:
    lines = [
        "load_tensors:        CUDA0 model buffer size =  4095.05 MiB",
        "llama_memory_recurrent:      CUDA0 RS buffer size =     9.50 MiB",
        "llama_kv_cache_dsv4:        CPU DSV4 csa state buffer size =     2.25 MiB",
    ]
    assert buffer_bytes(lines, "model") == round(4095.05 * MIB)
    assert buffer_bytes(lines, "RS", "state") == round(11.75 * MIB)


def test_weights_in_mapped_files_are_told_from_copies_wherever_these_are() -> None:
    on_device = "load_tensors: RPC0[127.0.0.1:51001] model buffer size =    92.00 MiB"
    assert weights_bytes([*GEMMA, on_device]) == (round(235.16 * MIB), round((12.66 + 92) * MIB))
    assert weights_bytes([]) == (0, 0)


def test_other_lines_count_nothing() -> None:
    lines = [
        "load_tensors: offloaded 0/19 layers to GPU",
        "clip_model_loader: model size: 100.00 MiB",
        "",
        "buffer size = MiB",
    ]
    assert buffer_bytes(lines, "model", "KV", "RS", "state", "output", "compute") == 0
    assert buffer_bytes([], "model") == 0


def test_buffers_belong_to_the_device_that_they_are_named_after_else_to_the_host() -> None:
    lines = [
        "load_tensors:   CPU_Mapped model buffer size =    28.00 MiB",
        "load_tensors: RPC0[127.0.0.1:51001] model buffer size =    92.00 MiB",
        "llama_context:        CPU  output buffer size =     3.75 MiB",
        "llama_kv_cache: RPC0[127.0.0.1:51001] KV buffer size =    45.00 MiB",
        "llama_memory_recurrent: RPC0[127.0.0.1:51002] RS buffer size =    1.00 MiB",
        "sched_reserve: RPC0[127.0.0.1:51001] compute buffer size =    97.00 MiB",
        "sched_reserve:  CUDA_Host compute buffer size =     4.00 MiB",
        "sched_reserve:  MTL0_Private compute buffer size =     2.00 MiB",
        "sched_reserve: graph nodes = 5",
    ]
    devices = {"RPC0[127.0.0.1:51001]": "RPC0", "RPC0[127.0.0.1:51002]": "RPC1", "MTL0": "MTL0"}
    assert buffers_of(lines, devices) == {
        "host": DeviceBytes(weights=28 * MIB, compute=4 * MIB, output=round(3.75 * MIB)),
        "RPC0": DeviceBytes(weights=92 * MIB, kv=45 * MIB, compute=97 * MIB),
        "RPC1": DeviceBytes(kv=MIB),
        "MTL0": DeviceBytes(compute=2 * MIB),
    }


def test_a_buffer_that_could_not_be_allocated_is_of_a_device_or_of_the_host() -> None:
    devices = {"CUDA0": "CUDA0", "RPC0[127.0.0.1:50052]": "RPC0"}
    weights = "alloc_tensor_range: failed to allocate CUDA0 buffer of size 4293918720"
    compute = "ggml_gallocr_reserve_n_impl: failed to allocate RPC0[127.0.0.1:50052] buffer of size 1018"
    host = "llama_model_load: error loading model: unable to allocate CPU_REPACK buffer"
    assert failed_allocations([weights, compute, weights], devices) == ["CUDA0", "RPC0"]
    assert failed_allocations([host, "graph_reserve: failed to allocate compute buffers"], devices) == []
    assert failed_allocations([], {}) == []
