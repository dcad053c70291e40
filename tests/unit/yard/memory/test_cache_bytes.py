"""The predicted bytes of KV cells and recurrent states, for headers that the tests make up."""

import pytest

from modelyard.engine.settings import CHECKPOINTS, DEFAULT_CONTEXT, PARKED_PART
from modelyard.formats.gguf.header import GgufArray, GgufHeader
from modelyard.yard.memory.cache_bytes import (
    CONTEXT_STEP,
    Windows,
    context_cells,
    is_windowed,
    kv_bytes,
    parked_bytes,
    state_bytes,
)
from modelyard.yard.memory.step_bytes import (
    output_bytes,
)
from support.gguf_headers import CELLS, F16, F32, WIDTH, attention, computing, header, renamed, shard, tensor

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
