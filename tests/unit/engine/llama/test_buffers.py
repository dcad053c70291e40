"""How much memory llama.cpp says that it allocated, in lines that it logged."""

from __future__ import annotations

from modelyard.engine.llama import buffer_bytes

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


def test_other_lines_count_nothing() -> None:
    lines = [
        "load_tensors: offloaded 0/19 layers to GPU",
        "clip_model_loader: model size: 100.00 MiB",
        "",
        "buffer size = MiB",
    ]
    assert buffer_bytes(lines, "model", "KV", "RS", "state", "output", "compute") == 0
    assert buffer_bytes([], "model") == 0
