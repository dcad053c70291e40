"""The predicted memory of a model, for headers that the tests make up."""

import pytest

from modelyard.engine.settings import CHECKPOINTS, DEFAULT_CONTEXT, PARKED_PART
from modelyard.formats.gguf.header import GgufArray, GgufHeader, GgufTensor
from modelyard.hub.select.model_files import ModelFiles
from modelyard.yard.memory.cache_bytes import (
    CELL_BYTES,
    CONTEXT_STEP,
    Windows,
    cell_bytes,
    context_cells,
    is_windowed,
    kv_bytes,
    parked_bytes,
    state_bytes,
)
from modelyard.yard.memory.footprint import PROCESS_BYTES, Footprint, taken_together
from modelyard.yard.memory.prediction import ENGINE_BYTES, ContextSettings, predict
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
from modelyard.yard.memory.weight_bytes import (
    MERGE_BYTES,
    TOKEN_BYTES,
    tensor_bytes,
    twice_held_bytes,
    vocabulary_bytes,
)

WIDTH = 64
F16 = 2
F32 = 4
CELLS = 256


def tensor(name, *shape, kind="F16", size_bytes=0):
    return GgufTensor(name, shape, kind, 0, size_bytes)


def header(*tensors, layers=1, tokens=0, merges=0, file_size=0, **numbers):
    """A model of one layer; ``numbers`` are keys of its architecture, with ``__`` for a dot."""
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.embedding_length": WIDTH,
        "tokenizer.ggml.tokens": GgufArray("str", tokens),
        "tokenizer.ggml.merges": GgufArray("str", merges),
    }
    own = {f"llama.{key.replace('__', '.')}": value for key, value in numbers.items()}
    return GgufHeader(3, metadata | own, tensors, file_size)


def shard(first, count):
    """The first of several files."""
    return GgufHeader(3, {**first.metadata, "split.no": 0, "split.count": count}, first.tensors, first.file_size)


def computing(model, cells=CELLS, tokens=32, running=1, **how):
    """What the steps of a model take that has no sequences beside those that run."""
    return compute_bytes(model, cells, tokens=tokens, running=running, sequences=running, outputs=running, **how)


def renamed(model, architecture):
    """These files with another architecture."""
    metadata = {key.replace("llama.", f"{architecture}."): value for key, value in model.metadata.items()}
    return GgufHeader(3, {**metadata, "general.architecture": architecture}, model.tensors, model.file_size)


def attention(layer=0, key=32, value=16):
    return (
        tensor(f"blk.{layer}.attn_k.weight", WIDTH, key),
        tensor(f"blk.{layer}.attn_v.weight", WIDTH, value),
    )


# Cells


@pytest.mark.parametrize(("asked", "cells"), [(1, 256), (255, 256), (256, 256), (257, 512), (2048, 2048), (5000, 5120)])
def test_a_context_is_rounded_up_to_whole_steps(asked, cells):
    assert context_cells(header(), asked) == cells
    assert cells % CONTEXT_STEP == 0


@pytest.mark.parametrize(
    ("trained", "cells"), [(2048, 2048), (300, 512), (DEFAULT_CONTEXT, DEFAULT_CONTEXT), (131_072, DEFAULT_CONTEXT)]
)
def test_a_context_that_nobody_asked_for_is_the_trained_one_up_to_the_default(trained, cells):
    assert context_cells(header(context_length=trained), None) == cells


def test_a_context_may_be_longer_than_the_trained_one_where_it_is_asked_for():
    assert context_cells(header(context_length=2048), 16_384) == 16_384


def test_a_model_that_does_not_say_its_context_gets_the_default():
    assert context_cells(header(), None) == DEFAULT_CONTEXT


# KV cache


def test_layers_with_a_window_have_cells_for_windows_alone():
    layers = [tensor for layer in range(12) for tensor in attention(layer)]
    gemma = renamed(header(*layers, layers=12, attention__sliding_window=512), "gemma3")
    windows, width = Windows(sequences=8, step_tokens=512), (32 + 16) * F16
    # Two layers of twelve see everything.
    assert kv_bytes(gemma, 32_768, windows=windows) == (2 * 32_768 + 10 * (8 * 512 + 512)) * width
    assert kv_bytes(gemma, 2048, windows=windows) == kv_bytes(gemma, 2048) == 12 * 2048 * width
    states = (
        parked_bytes(gemma, 32_768, 8, windows=windows)
        - (kv_bytes(gemma, 32_768, windows=windows) + output_bytes(gemma, 8)) // PARKED_PART
    )
    assert states == CHECKPOINTS * 10 * 512 * width
    # Never more than with all cells.
    sizes = [
        kv_bytes(gemma, cells, windows=windows) + parked_bytes(gemma, cells, 8, windows=windows)
        for cells in range(1024, 16_384, 256)
    ]
    whole = [kv_bytes(gemma, cells) + parked_bytes(gemma, cells, 8) for cells in range(1024, 16_384, 256)]
    assert sizes == sorted(sizes)
    assert all(size <= most for size, most in zip(sizes, whole, strict=True))
    assert not is_windowed(header(*layers, layers=12, attention__sliding_window=512))
    listed = {**gemma.metadata, "gemma3.attention.sliding_window_pattern": GgufArray("bool", 12)}
    assert not is_windowed(GgufHeader(3, listed, gemma.tensors, 0))


def test_keys_and_values_are_as_wide_as_their_projections():
    assert kv_bytes(header(*attention(key=32, value=16)), CELLS) == CELLS * (32 + 16) * F16


def test_every_layer_counts_with_its_own_width():
    model = header(*attention(0, 32, 32), *attention(1, 8, 8), layers=2)
    assert kv_bytes(model, CELLS) == CELLS * (64 + 16) * F16


def test_values_without_a_projection_are_as_wide_as_the_keys():
    model = header(tensor("blk.0.attn_k.weight", WIDTH, 32))
    assert kv_bytes(model, CELLS) == CELLS * (32 + 32) * F16


def test_a_fused_projection_leaves_what_is_not_query():
    fused = tensor("blk.0.attn_qkv.weight", WIDTH, 128 + 2 * 16)
    output = tensor("blk.0.attn_output.weight", 128, WIDTH)
    assert kv_bytes(header(fused, output), CELLS) == CELLS * 2 * 16 * F16
    # Without an output, the query is as wide as the model.
    assert kv_bytes(header(fused), CELLS) == CELLS * (160 - WIDTH) * F16


def test_latent_attention_keeps_its_latent_once():
    numbers = {"attention__key_length_mla": 96, "attention__head_count": 4}
    assert kv_bytes(header(tensor("blk.0.attn_kv_a_mqa.weight", WIDTH, 40), **numbers), CELLS) == CELLS * 40 * F16


def test_an_indexer_keeps_a_key_and_scores_every_cell():
    latent = {"attention__key_length_mla": 96, "attention__head_count": 4}
    indexer = {"attention__indexer__key_length": 128, "attention__indexer__head_count": 8}
    tensors = [
        tensor(f"blk.0.attn_{name}.weight", *shape)
        for name, *shape in (("kv_a_mqa", WIDTH, 80), ("kv_a_norm", 64), ("k_b", 32, 64, 4), ("q", WIDTH, 384))
    ]
    plain, indexed = header(*tensors, **latent), header(*tensors, **latent, **indexer)
    assert kv_bytes(indexed, 256) - kv_bytes(plain, 256) == 256 * 128 * 2

    def for_each_cell(model):
        return (computing(model, cells=8192) - computing(model, cells=4096)) / 4096

    # A mask of its own, and scores.
    assert for_each_cell(indexed) - for_each_cell(plain) >= 32 * (F16 + F32)


def test_older_files_of_latent_attention_keep_all_heads_spelt_out():
    numbers = {"attention__head_count": 4, "attention__head_count_kv": 4}
    numbers |= {"attention__key_length": 96, "attention__value_length": 64}
    model = header(tensor("blk.0.attn_kv_a_mqa.weight", WIDTH, 40), **numbers)
    assert kv_bytes(model, CELLS) == CELLS * 4 * (96 + 64) * F16


def test_layers_at_the_end_that_share_the_cells_of_earlier_ones_keep_nothing():
    layers = [part for layer in range(4) for part in attention(layer, 32, 16)]
    model = header(*layers, layers=4, attention__shared_kv_layers=3)
    assert kv_bytes(model, CELLS) == CELLS * (32 + 16) * F16


def test_the_first_twenty_layers_of_gemma_3n_have_cells_whatever_its_header_says():
    layers = [part for layer in range(30) for part in attention(layer, 32, 16)]
    model = renamed(header(*layers, layers=30, attention__shared_kv_layers=15), "gemma3n")
    assert kv_bytes(model, CELLS) == 20 * CELLS * (32 + 16) * F16


def test_a_layer_may_have_attention_beside_its_recurrence():
    output = tensor("blk.0.attn_output.weight", 128, WIDTH)
    model = header(*attention(), output, tensor("blk.0.ssm_in.weight", WIDTH, 99))
    assert kv_bytes(model, CELLS) == CELLS * (32 + 16) * F16


def test_layers_in_other_shards_count_as_the_widest_that_is_known():
    layers = (*attention(0, 32, 16), *attention(1, 16, 16), *attention(2, 64, 64))
    first = header(*layers, layers=10, attention__head_count=8, attention__head_count_kv=1)
    # The last layer of the first shard may be there in part.
    assert kv_bytes(shard(first, 3), CELLS) == CELLS * ((32 + 16) + (16 + 16) + 8 * (32 + 16)) * F16


def test_layers_in_other_shards_count_by_the_numbers_of_heads_where_none_is_known():
    numbers = {"attention__head_count": 8, "attention__head_count_kv": 2}
    assert kv_bytes(shard(header(layers=10, **numbers), 3), CELLS) == CELLS * 10 * 2 * 2 * (WIDTH // 8) * F16
    assert kv_bytes(shard(header(layers=10), 3), CELLS) == CELLS * 10 * 2 * WIDTH * F16


def test_a_layer_without_attention_keeps_nothing_beside_one_with():
    model = header(*attention(1), tensor("blk.0.ssm_in.weight", WIDTH, 99), layers=2)
    assert kv_bytes(model, CELLS) == CELLS * (32 + 16) * F16


@pytest.mark.parametrize("name", ["blk.0.ssm_in.weight", "blk.0.time_mix_key.weight"])
def test_a_recurrent_model_has_no_kv_cache(name):
    assert kv_bytes(header(tensor(name, WIDTH, 99)), CELLS) == 0


def test_unknown_attention_counts_more_than_any_model_needs():
    model = header(tensor("blk.0.attn_new.weight", WIDTH, 8), layers=3)
    assert kv_bytes(model, CELLS) == CELLS * 3 * 2 * WIDTH * F16
    # A name that only looks recurrent is none.
    model = header(tensor("enc.blk.0.ssm_in.weight", WIDTH, 8), layers=3)
    assert kv_bytes(model, CELLS) == CELLS * 3 * 2 * WIDTH * F16


def test_values_of_eight_bits_take_34_bytes_for_32():
    assert kv_bytes(header(*attention(key=32, value=32)), CELLS, "q8_0") == CELLS * 2 * 34


def test_a_sliding_window_saves_no_kv_cells():
    assert kv_bytes(header(*attention(), attention__sliding_window=64), CELLS) == kv_bytes(header(*attention()), CELLS)


# Recurrent state


def test_a_transformer_has_no_recurrent_state():
    assert state_bytes(header(*attention()), 10) == 0


def test_the_state_of_a_state_space_model_counts_for_each_sequence_and_recurrent_layer():
    numbers = {"ssm__inner_size": 100, "ssm__state_size": 16, "ssm__group_count": 2, "ssm__conv_kernel": 4}
    layers = [tensor(f"blk.{layer}.ssm_{part}.weight", 1, 1) for layer in (0, 2) for part in ("in", "out")]
    model = header(*layers, *attention(1), layers=3, **numbers)
    rows = 3 * (100 + 2 * 2 * 16) + 100 * 16
    assert state_bytes(model, 1) == 2 * rows * F32
    assert state_bytes(model, 5) == 5 * state_bytes(model, 1)


def test_recurrent_layers_in_other_shards_count_like_the_first():
    numbers = {"ssm__inner_size": 100, "ssm__state_size": 16, "ssm__conv_kernel": 4}
    layers = [tensor(f"blk.{layer}.ssm_in.weight", 1, 1) for layer in range(3)]
    rows = 3 * 100 + 100 * 16
    assert state_bytes(shard(header(*layers, layers=12, **numbers), 4), 2) == 2 * 12 * rows * F32


@pytest.mark.parametrize(
    ("name", "numbers", "values"),
    [
        ("shortconv.conv.weight", {"shortconv__l_cache": 3}, 2 * WIDTH),
        ("ssm_conv1d_q.weight", {"kda__head_dim": 8, "ssm__conv_kernel": 4}, (3 * 3 + 8) * 48),
    ],
    ids=["short convolutions", "delta attention"],
)
def test_other_recurrences_have_states_of_their_own(name, numbers, values):
    assert state_bytes(header(tensor(f"blk.0.{name}", 4, 48), **numbers), 5) == 5 * values * F32


def test_the_state_of_an_rwkv_model_is_a_matrix_for_each_head_and_two_shifts():
    model = header(tensor("blk.0.time_mix_key.weight", WIDTH, WIDTH), wkv__head_size=8)
    assert state_bytes(model, 3) == 3 * (8 + 2) * WIDTH * F32


# Buffers


def test_outputs_have_a_row_for_each_sequence():
    assert output_bytes(header(tokens=1000), 12) == 12 * 1000 * F32


def dense(layer=0, wide=200):
    return (
        *attention(layer),
        tensor(f"blk.{layer}.attn_q.weight", WIDTH, WIDTH),
        tensor(f"blk.{layer}.attn_output.weight", WIDTH, WIDTH),
        tensor(f"blk.{layer}.ffn_gate.weight", WIDTH, wide),
        tensor(f"blk.{layer}.ffn_up.weight", WIDTH, wide),
        tensor(f"blk.{layer}.ffn_down.weight", wide, WIDTH),
    )


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


def mamba(layer=0, inner=100, state=16, groups=2):
    channels = 2 * inner + 2 * groups * state
    names = ("ssm_in", WIDTH, channels), ("ssm_conv1d", 4, channels), ("ssm_out", inner, WIDTH)
    return [tensor(f"blk.{layer}.{name}.weight", *shape) for name, *shape in names]


MAMBA = {"ssm__inner_size": 100, "ssm__state_size": 16, "ssm__group_count": 2, "ssm__conv_kernel": 4}


def test_a_step_works_on_the_states_of_those_that_run():
    model = header(*mamba(state=256), **MAMBA | {"ssm__state_size": 256})
    states = 7 * 100 * 256 * F32
    assert states <= computing(model, running=8) - computing(model, running=1) < 2 * states


def test_sequences_that_do_not_run_have_no_states_in_a_step():
    model = header(*mamba(), **MAMBA)
    one, kept = (compute_bytes(model, CELLS, tokens=32, running=2, sequences=count, outputs=2) for count in (2, 64))
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


# Prediction heads


def test_prediction_heads_have_no_cells_and_are_not_loaded(tmp_path):
    layers = [tensor(f"blk.{layer}.attn_k.weight", WIDTH, 32, size_bytes=100) for layer in range(3)]
    layers = [GgufTensor(one.name, one.shape, one.type, 100 * at, 100) for at, one in enumerate(layers)]
    with_head = header(*layers, layers=3, nextn_predict_layers=1, file_size=300)
    assert kv_bytes(with_head, CELLS) == CELLS * 2 * (32 + 32) * F16
    assert tensor_bytes(files(tmp_path / "m", with_head, 300)) == 200
    assert tensor_bytes(files(tmp_path / "m", header(*layers, layers=3, file_size=300), 300)) == 300


def test_a_head_between_other_tensors_stays_mapped(tmp_path):
    names = ("blk.0.attn_k.weight", "blk.1.attn_k.weight", "output.weight")
    tensors = [GgufTensor(name, (WIDTH, 32), "F16", 100 * at, 100) for at, name in enumerate(names)]
    model = header(*tensors, layers=2, nextn_predict_layers=1, file_size=300)
    assert tensor_bytes(files(tmp_path / "m", model, 300)) == 300


# Weights


X86, ARM = "x86_64", "aarch64"


def twice(*tensors, processor=X86, gives_back=False):
    """Bytes held twice of a file that has an output of its own, and does not use the embeddings for it."""
    output = tensor("output.weight", 256, 8)
    return twice_held_bytes(header(output, *tensors), 0, processor, gives_back=gives_back)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "IQ4_NL", "MXFP4"])
def test_weights_of_some_types_are_there_twice_unless_the_pages_of_the_file_are_given_back(kind):
    weights = tensor("blk.0.ffn_up.weight", 256, 8, kind=kind, size_bytes=1000)
    assert twice(weights) == 1000
    assert twice(weights, gives_back=True) == 0


@pytest.mark.parametrize(
    "alone",
    [
        tensor("blk.0.ffn_up.weight", 256, 8, kind="Q8_0", size_bytes=1000),
        tensor("blk.0.ffn_up.weight", 256, 12, kind="Q4_0", size_bytes=1000),
        tensor("blk.0.ffn_norm.weight", 256, kind="Q4_0", size_bytes=1000),
        tensor("token_embd.weight", 256, 8, kind="Q4_0", size_bytes=1000),
        tensor("per_layer_token_embd.weight", 256, 8, kind="Q4_0", size_bytes=1000),
    ],
    ids=["another type", "rows in no eights", "a vector", "embeddings", "embeddings of layers"],
)
def test_other_weights_are_there_once(alone):
    assert twice(alone) == 0


def test_on_other_processors_other_types_are_there_twice():
    weights = tensor("blk.0.ffn_up.weight", 256, 8, kind="Q8_0", size_bytes=1000)
    assert twice(weights, processor=ARM) == 1000


@pytest.mark.parametrize("gives_back", [True, False])
def test_embeddings_that_are_the_output_too_are_there_twice(gives_back):
    embeddings = tensor("token_embd.weight", 256, 8, kind="Q4_0", size_bytes=1000)
    assert twice_held_bytes(header(embeddings), 1000, X86, gives_back=gives_back) == 1000


def test_shards_that_are_not_known_are_taken_to_be_like_the_first():
    first = header(
        tensor("blk.0.ffn_up.weight", 256, 8, kind="Q4_K", size_bytes=1000),
        tensor("blk.0.ffn_norm.weight", 256, kind="F32", size_bytes=1000),
    )
    assert twice_held_bytes(shard(first, 3), 6000, X86, gives_back=False) == 3000


def test_embeddings_of_a_first_shard_may_be_the_output_unless_it_has_one():
    embeddings = tensor("token_embd.weight", 256, 8, kind="Q4_K", size_bytes=1000)
    assert twice_held_bytes(shard(header(embeddings), 3), 6000, X86, gives_back=True) == 1000
    untied = header(embeddings, tensor("output.weight", 256, 8, kind="Q6_K", size_bytes=1000))
    assert twice_held_bytes(shard(untied, 3), 6000, X86, gives_back=True) == 0


@pytest.mark.parametrize(("file_type", "are_repacked"), [(15, True), (7, False)], ids=["Q4_K_M", "Q8_0"])
def test_shards_behind_one_without_tensors_are_taken_to_be_of_the_type_that_it_says(file_type, are_repacked):
    first = header(tokens=1000)
    first.metadata.update({"general.file_type": file_type, "llama.embedding_length": 64})
    assert twice_held_bytes(shard(first, 3), 6000, X86, gives_back=False) == 6000 * are_repacked
    # Embeddings of the largest of these types.
    assert twice_held_bytes(shard(first, 3), 6000, X86, gives_back=True) == 1000 * 64 * 34 // 32 * are_repacked


def test_the_vocabulary_takes_heap_for_tokens_and_merges():
    assert vocabulary_bytes(header(tokens=1000, merges=300)) == 1000 * TOKEN_BYTES + 300 * MERGE_BYTES
    assert vocabulary_bytes(GgufHeader(3, {}, (), 0)) == 0


# All of it


def files(path, model, size_bytes=5000):
    return ModelFiles((path,), model, size_bytes, "the only file", "F16")


def test_a_prediction_is_the_sum_of_its_parts(tmp_path):
    big = tensor("blk.0.ffn_up.weight", WIDTH, 96, kind="Q4_K", size_bytes=700)
    recurrent = tensor("blk.1.time_mix_key.weight", WIDTH, WIDTH, size_bytes=300)
    model = header(*attention(), big, recurrent, layers=2, tokens=20_000, merges=10, wkv__head_size=8, file_size=1400)
    predicted = predict(
        files(tmp_path / "m", model, 1400),
        ContextSettings(context_length=300, running=2, sequences=5, batch_tokens=32, threads=2),
        processor=X86,
    )
    # What precedes the tensors does not stay.
    assert predicted.weights_bytes == (700 + 300) + vocabulary_bytes(model)
    parts = (
        kv_bytes(model, 512),
        state_bytes(model, 5),
        output_bytes(model, 5),
        sampler_bytes(model, 2),
        compute_bytes(model, 512, tokens=32, running=2, sequences=5, outputs=2),
        graph_bytes(model, 32),
        work_bytes(model, 32, 2),
        cell_bytes(model, 512),
        parked_bytes(model, 512, 5),
    )
    assert all(parts)
    assert predicted.context_bytes == sum(parts) + ENGINE_BYTES
    assert predicted.total_bytes == predicted.weights_bytes + predicted.context_bytes


def test_models_on_the_same_file_have_the_same_weights_whatever_link_leads_to_it(tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "copy").write_bytes(b"weights")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "blob")
    blob, link, copy = (
        predict(
            files(tmp_path / name, header()),
            ContextSettings(context_length=tokens, running=1, sequences=1, batch_tokens=32),
        )
        for name, tokens in (("blob", 256), ("link.gguf", 1024), ("copy", 256))
    )
    assert blob.weights_key == link.weights_key != copy.weights_key
    assert blob.weights_bytes == link.weights_bytes
    assert blob.context_bytes < link.context_bytes


def test_a_parked_model_takes_no_pages_of_its_file_unless_another_computes_on_them():
    loaded = Footprint("w", 100, 40).mapping(90)
    assert taken_together([(loaded, True)]) == {"host": 140}
    assert taken_together([(loaded, False)]) == {"host": 10}
    assert taken_together([(loaded, False), (Footprint("w", 100, 7), True)]) == {"host": 107}
    assert Footprint("w", 100, 40).mapping(200).mapped_bytes == 100


def test_models_that_share_only_some_of_their_shards_do_not_share_weights(tmp_path):
    def key(*names):
        paths = tuple(tmp_path / name for name in names)
        model = ModelFiles(paths, header(), 1, "shards", "F16")
        return predict(model, ContextSettings(context_length=1, running=1, sequences=1, batch_tokens=1)).weights_key

    assert key("1", "2") == key("1", "2")
    assert len({key("1", "2"), key("1", "3"), key("1"), key("2", "1")}) == 4


def test_idle_prefixes_may_take_a_quarter_of_the_cache_beside_it(tmp_path):
    model = header(*attention(), layers=1)
    with_them, without = (
        predict(
            files(tmp_path / "m", model),
            ContextSettings(context_length=512, running=1, sequences=1, batch_tokens=32, parks=parks),
        ).context_bytes
        for parks in (True, False)
    )
    assert with_them - without == parked_bytes(model, 512, 1) == (kv_bytes(model, 512) + output_bytes(model, 1)) // 4


def test_a_draft_model_adds_its_context_and_weights_that_may_be_shared():
    drafted = Footprint("w", 100, 50).drafted_by(Footprint("d", 20, 10))
    assert (drafted.weights, drafted.context_bytes, drafted.total_bytes) == ({"w": 100, "d": 20}, 60, 180)
    assert Footprint("w", 100, 50).drafted_by(Footprint("w", 100, 10)).total_bytes == 160


def test_what_was_allocated_raises_a_prediction_and_never_lowers_it():
    predicted = Footprint("w", 100, 50)
    assert predicted.corrected(120, 40) == Footprint("w", 120, 50)
    assert predicted.corrected(80, 60) == Footprint("w", 100, 60)


def test_checkpoints_of_recurrent_states_may_take_a_quarter_of_the_context_and_some_states() -> None:
    model = header(*mamba(), **MAMBA)
    context = state_bytes(model, 5) + output_bytes(model, 5)
    assert parked_bytes(model, 512, 5) == context // PARKED_PART + CHECKPOINTS * state_bytes(model, 1)


def test_a_process_counts_as_long_as_weights_are_in_it_once_for_all_engines_in_it():
    alone = Footprint("w", 100, 40).mapping(90).in_process()
    assert taken_together([(alone, False)]) == {"host": 10 + PROCESS_BYTES}
    assert taken_together([(alone, True), (alone, True)]) == {"host": 180 + PROCESS_BYTES}
