"""The predicted bytes of a step, for headers that the tests make up."""

import pytest

from modelyard.yard.memory.cache_bytes import (
    CELL_BYTES,
    cell_bytes,
)
from modelyard.yard.memory.step_bytes import (
    CANDIDATE_BYTES,
    GRAPHS,
    MIN_NODES,
    TENSOR_OVERHEAD,
    compute_bytes,
    graph_bytes,
    output_bytes,
    sampler_bytes,
    work_bytes,
)
from modelyard.yard.memory.step_operations import Step
from support.gguf_headers import (
    CELLS,
    F16,
    F32,
    MAMBA,
    WIDTH,
    attention,
    computing,
    dense,
    header,
    mamba,
    renamed,
    tensor,
)

# Buffers


def test_outputs_have_a_row_for_each_sequence():
    assert output_bytes(header(tokens=1000), 12) == 12 * 1000 * F32


def test_a_step_works_on_its_mask_and_on_the_tensors_of_a_layer():
    model, tokens = header(*dense()), 32
    # The stream, what is normed of it, and both halves of the feed-forward layer; gaps beside them.
    layer = tokens * (2 * WIDTH + 2 * 200) * F32
    assert layer < computing(model, tokens=tokens) - CELLS * tokens * F16 < 2 * layer


def test_a_longer_context_has_a_larger_mask():
    model = header(*dense())
    assert computing(model, cells=4096) - computing(model, cells=2048) == 2048 * 32 * F16


def test_logits_take_the_place_of_the_layers_where_they_are_larger():
    few, many = header(*dense(), tokens=10), header(*dense(), tokens=1_000_000)
    assert computing(many) > 1_000_000 * F32
    assert computing(many) < 1_000_000 * F32 + computing(few)


def test_what_is_reserved_and_never_touched_is_not_counted():
    """llama.cpp reserves logits for each token of a step."""
    model = header(*dense(), tokens=100_000)
    assert computing(model, tokens=256) < 256 * 100_000 * F32 / 10


def test_a_model_without_attention_has_no_mask():
    model = header(tensor("blk.0.time_mix_key.weight", WIDTH, 99), wkv__head_size=8)
    assert computing(model, cells=256) == computing(model, cells=4096)


@pytest.mark.parametrize(
    ("architecture", "window", "masks"),
    [("llama", 64, 1), ("gemma3", 64, 2), ("gemma3", 0, 1), ("phi3", 64, 1), ("llama4", None, 2), ("llama4", 0, 1)],
)
def test_a_sliding_window_that_llama_cpp_heeds_has_a_mask_of_its_own(architecture, window, masks):
    numbers = {} if window is None else {"attention__sliding_window": window}
    model = renamed(header(*dense(), **numbers), architecture)
    assert computing(model, cells=4096) - computing(model, cells=2048) == masks * 2048 * 32 * F16


def test_attention_without_flash_has_scores_of_every_head_beside_a_mask_of_twice_the_width():
    model = header(*dense(), attention__head_count=8)
    grok = renamed(model, "grok")
    grown = computing(grok, cells=8192) - computing(grok, cells=4096)
    assert grown == 4096 * 32 * (1 + 8) * F32
    assert computing(model, has_flash_attention=False) == computing(grok)


def test_the_widest_of_the_feed_forward_layers_counts():
    narrow, wide_end, wide_start = (
        computing(header(*dense(0, first), *dense(1, last), layers=2))
        for first, last in ((100, 100), (100, 300), (300, 100))
    )
    assert min(wide_end, wide_start) >= narrow + 2 * 32 * 200 * F32


@pytest.mark.parametrize("is_fused", [False, True])
def test_every_expert_that_a_token_goes_through_counts(is_fused):
    names = ("ffn_gate_up_exps",) if is_fused else ("ffn_gate_exps", "ffn_up_exps")
    experts = [tensor(f"blk.0.{name}.weight", WIDTH, 100 * (1 + is_fused), 16) for name in names]
    routed = (*attention(), tensor("blk.0.ffn_gate_inp.weight", WIDTH, 16), *experts)
    few, many = (computing(header(*routed, expert_used_count=used)) for used in (2, 8))
    assert many - few >= 6 * 32 * (2 * 100 + WIDTH) * F32


def test_a_step_works_on_the_states_of_those_that_run():
    model = header(*mamba(state=256), **MAMBA | {"ssm__state_size": 256})
    states = 7 * 100 * 256 * F32
    assert states <= computing(model, running=8) - computing(model, running=1) < 2 * states


def test_sequences_that_do_not_run_have_no_states_in_a_step():
    model = header(*mamba(), **MAMBA)
    one, kept = (compute_bytes(model, Step(CELLS, 32, count, 2, has_embeddings=False), 2) for count in (2, 64))
    assert kept < 2 * one


def test_embeddings_in_the_place_of_tokens_are_touched_where_there_are_images():
    model = header(*dense())
    assert computing(model, has_embeddings=True) - computing(model) == 32 * WIDTH * F32


def test_a_file_whose_layers_are_not_known_is_taken_for_a_usual_model():
    assert computing(header(feed_forward_length=200)) >= 32 * (2 * WIDTH + 2 * 200) * F32


def test_graphs_are_described_three_times():
    small = graph_bytes(header(*dense()), 512)
    assert small >= GRAPHS * MIN_NODES * TENSOR_OVERHEAD
    assert small == graph_bytes(header(*dense()), 2048)


def test_graphs_of_some_architectures_have_room_for_each_token():
    model = renamed(header(*dense()), "qwen35")
    assert graph_bytes(model, 2048) >= GRAPHS * 40 * 2048 * TENSOR_OVERHEAD
    assert graph_bytes(model, 2048) > 3 * graph_bytes(model, 512)


def test_operands_are_converted_to_the_type_of_the_weights():
    def working(kind):
        return work_bytes(header(tensor("blk.0.ffn_down.weight", 300, WIDTH, kind=kind)), 512, 1)

    nothing = working("F32")
    assert working("F16") - nothing == 512 * 300 * F16
    assert 512 * 300 < working("Q4_K") - nothing < 512 * 300 * F16


def test_operands_of_experts_are_there_once_for_each_that_is_used():
    experts = tensor("blk.0.ffn_down_exps.weight", 300, WIDTH, 8, kind="F16")
    one, four = (work_bytes(header(experts, expert_used_count=used), 512, 1) for used in (1, 4))
    assert four - one == 3 * 512 * 300 * F16


def test_operands_of_absorbed_projections_are_there_once_for_each_head():
    absorbed = tensor("blk.0.attn_k_b.weight", 300, WIDTH, kind="F16")
    one, four = (work_bytes(header(absorbed, attention__head_count=heads), 512, 0) for heads in (1, 4))
    assert four - one == 3 * 512 * 300 * F16


def test_every_thread_has_a_workspace():
    model = header(*dense())
    assert work_bytes(model, 512, 9) - work_bytes(model, 512, 8) == work_bytes(model, 512, 1) - work_bytes(
        model, 512, 0
    )
    assert work_bytes(model, 512, 1) > work_bytes(model, 512, 0)


def test_the_books_of_the_cells_are_there_once_for_each_cache():
    assert cell_bytes(header(*attention()), CELLS) == CELLS * CELL_BYTES
    assert cell_bytes(header(*attention(), attention__sliding_window=64), CELLS) == 2 * CELLS * CELL_BYTES
    assert cell_bytes(header(*mamba(), **MAMBA), CELLS) == 0


def test_every_sequence_that_samples_keeps_its_candidates():
    assert sampler_bytes(header(tokens=1000), 3) == 3 * 1000 * CANDIDATE_BYTES
