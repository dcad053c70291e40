"""The buffer of a step, against what llama.cpp reserves for the checkpoints of ``tests/architectures``.

``architectures.steps`` has measured those; they are so small that what results of a few numbers take, which the
prediction leaves out, and the 10 kB that the log rounds to can be seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from modelyard.formats.gguf.header import GgufHeader, GgufTensor
from modelyard.yard.memory.step_graph import step_graph
from modelyard.yard.memory.step_operations import Step

MEASURED: Final[dict[str, dict[str, Any]]] = json.loads(Path(__file__).with_name("measured_steps.json").read_text())
STEP: Final = Step(cells=1024, tokens=256, sequences=4, outputs=4)
PLAIN: Final = Step(cells=1024, tokens=256, sequences=4, outputs=4, has_flash_attention=False)

# Parts by which the prediction may be too low and too high; docs/performance.md has the numbers of each. At Gemma 3n it
# lacks as much as one more tensor with the embeddings of all layers.
CLOSE: Final = (0.005, 0.005)
OTHERS: Final = {
    "gemma3n": (0.25, 0.0),
    "llama4": (0.06, 0.0),
    "qwen2-moe": (0.0, 0.05),
    "deepseek-v3.2": (0.13, 0.0),
}
PLAIN_CLOSE: Final = (0.042, 0.025)


def header(architecture: str, numbers: dict[str, int], layers: list[dict[str, list[int]]], **more: int) -> GgufHeader:
    tensors = tuple(
        GgufTensor(f"blk.{number}.{part}", tuple(shape), "F32", 0, 0)
        for number, layer in enumerate(layers)
        for part, shape in layer.items()
    )
    metadata = {f"{architecture}.{key}": value for key, value in numbers.items()}
    return GgufHeader(3, {"general.architecture": architecture, **metadata, **more}, tensors, 0)


def measured_header(name: str) -> GgufHeader:
    measured = MEASURED[name]
    layers = [measured["kinds"][kind] for kind in measured["layers"]]
    return header(measured["architecture"], measured["numbers"], layers)


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_the_buffer_of_a_step_is_what_llama_cpp_reserves(name: str) -> None:
    low, high = OTHERS.get(name, CLOSE)
    told = step_graph(measured_header(name), STEP, MEASURED[name]["vocabulary"]).buffer_bytes()
    assert 1 - low <= told / MEASURED[name]["fused_bytes"] <= 1 + high


@pytest.mark.parametrize("name", sorted(MEASURED.keys() - OTHERS.keys()))
def test_attention_that_is_not_fused_writes_its_scores(name: str) -> None:
    told = step_graph(measured_header(name), PLAIN, MEASURED[name]["vocabulary"]).buffer_bytes()
    assert 1 - PLAIN_CLOSE[0] <= told / MEASURED[name]["plain_bytes"] <= 1 + PLAIN_CLOSE[1]


WIDTH: Final = 128
HEADS: Final = 4
# Gaps between tensors, which llama.cpp's allocator leaves, too.
GAPS: Final = 0.25


def test_delta_attention_has_its_inputs_its_states_and_its_output_at_the_same_time() -> None:
    head, kernel = 64, 4
    inner = HEADS * head
    layer = {f"ssm_conv1d_{side}.weight": [kernel, 1, inner] for side in "qkv"}
    layer |= {"attn_norm.weight": [WIDTH], "attn_output.weight": [inner, WIDTH]}
    numbers = {"block_count": 1, "embedding_length": WIDTH, "kda.head_dim": head, "ssm.conv_kernel": kernel}
    told = step_graph(header("kimi-linear", numbers, [layer]), STEP, 64).buffer_bytes()
    # The stream and its norm, which the output's gate reads; keys, queries, values, decay and output; beta. The states
    # before and after. Source: src/models/kimi-linear.cpp.
    alive = 4 * STEP.tokens * (2 * WIDTH + 5 * inner + HEADS) + 4 * STEP.sequences * 2 * head * inner
    assert alive <= told <= alive * (1 + GAPS)


def test_latent_attention_of_old_files_computes_whole_keys_and_values() -> None:
    plain, position, value, latent = 32, 16, 32, 64
    whole = HEADS * (plain + position)
    layer = {
        "attn_norm.weight": [WIDTH],
        "attn_q.weight": [WIDTH, whole],
        "attn_kv_a_mqa.weight": [WIDTH, latent + position],
        "attn_kv_a_norm.weight": [latent],
        "attn_kv_b.weight": [latent, HEADS * (plain + value)],
        "attn_output.weight": [HEADS * value, WIDTH],
    }
    numbers = {"block_count": 1, "embedding_length": WIDTH, "attention.head_count": HEADS}
    told = step_graph(header("deepseek2", numbers, [layer]), STEP, 64).buffer_bytes()
    # Embeddings and the stream, queries and keys, values and what attention returns; the mask.
    # Source: src/models/deepseek2.cpp.
    alive = 4 * STEP.tokens * (2 * WIDTH + 2 * whole + 2 * HEADS * value) + 2 * STEP.tokens * STEP.cells
    assert alive <= told <= alive * (1 + GAPS)


EXPERTS: Final = {
    "attn_norm.weight": [WIDTH],
    "ffn_gate_inp.weight": [WIDTH, 8],
    "ffn_down_exps.weight": [64, WIDTH, 8],
}


def test_experts_whose_gate_and_input_are_one_tensor_take_what_two_take() -> None:
    numbers = {"block_count": 1, "embedding_length": WIDTH, "expert_used_count": 2}
    apart = {**EXPERTS, "ffn_gate_exps.weight": [WIDTH, 64, 8], "ffn_up_exps.weight": [WIDTH, 64, 8]}
    joined = {**EXPERTS, "ffn_gate_up_exps.weight": [WIDTH, 128, 8]}
    both = [step_graph(header("qwen3moe", numbers, [layer]), STEP, 64).buffer_bytes() for layer in (apart, joined)]
    assert both[0] == both[1]


def test_the_last_layer_of_a_shard_stands_for_those_of_other_shards() -> None:
    whole = measured_header("llama3")
    layers = [MEASURED["llama3"]["kinds"][kind] for kind in MEASURED["llama3"]["layers"]]
    # Of the last layer of a shard a part may be in the next one.
    first_two = header("llama", MEASURED["llama3"]["numbers"], layers[:3], **{"split.no": 0, "split.count": 2})
    graphs = [step_graph(one, STEP, 64, has_all_layers=True) for one in (whole, first_two)]
    assert graphs[0].tensors == graphs[1].tensors


def test_a_first_shard_without_tensors_has_the_usual_layers() -> None:
    numbers = {"block_count": 4, "embedding_length": WIDTH, "feed_forward_length": 256, "attention.head_count": HEADS}
    shard = header("llama", numbers, [], **{"split.no": 0, "split.count": 2})
    usual = {f"attn_{part}.weight": [WIDTH, WIDTH] for part in ("q", "k", "v", "output")}
    usual |= {"ffn_gate.weight": [WIDTH, 256], "ffn_up.weight": [WIDTH, 256], "ffn_down.weight": [256, WIDTH]}
    graphs = [step_graph(one, STEP, 64, has_all_layers=True) for one in (shard, header("llama", numbers, [usual] * 4))]
    assert graphs[0].tensors == graphs[1].tensors
