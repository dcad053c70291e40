"""What a model is predicted to take of each device; ``tests/integration/test_devices.py`` asks llama.cpp."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.formats.gguf.header import GgufHeader
from modelyard.formats.gguf.read import read_header
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.layer_placement import LayerPlacement
from modelyard.yard.memory.placed_footprint import placed_bytes
from modelyard.yard.memory.placed_step import COPIES, bytes_by_device
from modelyard.yard.memory.placed_weights import ModelWeights
from modelyard.yard.memory.prediction import ContextSettings
from modelyard.yard.memory.step_buffer import StepGraph
from support.sparse_models import write_dense, write_experts

LAYERS = 24
ONE, BOTH = Placement(devices=("A",)), Placement(devices=("A", "B"), split=(1.0, 1.0))
CONTEXT = ContextSettings(context_length=4096, running=8, sequences=12, batch_tokens=512)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experts(tmp_path_factory.mktemp("experts") / "experts.gguf", layers=LAYERS)


@pytest.fixture(scope="module")
def experts(path: Path) -> GgufHeader:
    return read_header(path)


def layers(header: GgufHeader, placement: Placement) -> list[str]:
    """The devices of all layers and of the output."""
    placed = LayerPlacement(header, placement)
    return [placed.layer(number) for number in range(LAYERS + 1)]


def test_on_the_host_everything_is_there(experts: GgufHeader) -> None:
    assert set(layers(experts, ON_HOST)) == {"host"}
    assert set(placed_bytes(experts, ON_HOST, CONTEXT)) == {"host"}


def test_on_one_device_only_what_is_looked_up_stays_on_the_host(experts: GgufHeader) -> None:
    placed = LayerPlacement(experts, ONE)
    on_host = {tensor.name for tensor in experts.tensors if placed.tensor(tensor.name) == "host"}
    assert on_host == {"token_embd.weight"}


def test_layers_on_devices_are_the_last_ones_and_the_output_is_one(experts: GgufHeader) -> None:
    assert layers(experts, Placement(devices=("A",), gpu_layers=3)) == ["host"] * 22 + ["A"] * 3
    assert layers(experts, Placement(devices=("A",), gpu_layers=1))[-1] == "A"
    assert set(layers(experts, Placement(devices=("A",), gpu_layers=99))) == {"A"}


@pytest.mark.parametrize("first", range(1, 20))
def test_each_device_gets_as_many_layers_as_it_is_given(experts: GgufHeader, first: int) -> None:
    placement = Placement(devices=("A", "B"), gpu_layers=20, split=(float(first), float(20 - first)))
    assert layers(experts, placement) == ["host"] * 5 + ["A"] * first + ["B"] * (20 - first)


def test_a_main_device_has_all(experts: GgufHeader) -> None:
    assert set(layers(experts, Placement(devices=("A", "B"), split_mode="none", main_device=1))) == {"B"}


def test_tensors_go_where_their_names_are_sent_and_experts_of_the_first_layers_to_the_host(
    experts: GgufHeader,
) -> None:
    placement = Placement(
        devices=("A", "B"),
        split=(1.0, 0.0),
        cpu_moe_layers=2,
        tensor_overrides=((r"blk\.0\.ffn_up", "B"), (r"attn_k\.", "host")),
    )
    placed = LayerPlacement(experts, placement)
    assert placed.tensor("blk.0.ffn_up_exps.weight") == "B"
    assert placed.tensor("blk.1.ffn_up_exps.weight") == "host"
    assert placed.tensor("blk.2.ffn_up_exps.weight") == "A"
    assert placed.tensor("blk.1.attn_q.weight") == "A"
    assert placed.tensor("blk.20.attn_k.weight") == "host"


def test_no_byte_of_the_weights_and_of_the_cache_is_lost_between_devices(experts: GgufHeader) -> None:
    whole = placed_bytes(experts, ON_HOST, CONTEXT)["host"]
    for placement in (ONE, BOTH, Placement(devices=("A", "B"), gpu_layers=7, split=(2.0, 1.0), cpu_moe_layers=20)):
        placed = placed_bytes(experts, placement, CONTEXT)
        assert sum(each.weights for each in placed.values()) == whole.weights
        assert sum(each.kv for each in placed.values()) == whole.kv
        assert sum(each.output for each in placed.values()) == placed["host"].output == whole.output


def test_a_cache_on_the_host_takes_nothing_of_devices(experts: GgufHeader) -> None:
    placed = placed_bytes(experts, Placement(devices=("A",), kv_on_host=True), CONTEXT)
    assert placed["A"].kv == 0
    assert placed["host"].kv == placed_bytes(experts, ON_HOST, CONTEXT)["host"].kv


def test_embeddings_that_are_the_output_matrix_too_are_kept_twice_where_the_output_is_on_a_device(
    tmp_path: Path,
) -> None:
    header = read_header(write_dense(tmp_path / "dense.gguf", layers=2))
    (embeddings,) = (tensor.size_bytes for tensor in header.tensors if tensor.name == "token_embd.weight")
    whole = placed_bytes(header, ON_HOST, CONTEXT)["host"].weights
    placed = placed_bytes(header, ONE, CONTEXT)
    assert placed["host"].weights == embeddings
    assert placed["A"].weights == whole


def test_embeddings_that_are_sent_to_the_device_of_the_output_are_kept_once(tmp_path: Path) -> None:
    header = read_header(write_dense(tmp_path / "dense.gguf", layers=2))
    # On the host, the copy that serves as the output matrix would be repacked.
    tensors = tuple(
        replace(tensor, type="Q4_0") if tensor.name == "token_embd.weight" else tensor for tensor in header.tensors
    )
    sent = replace(ONE, tensor_overrides=(("token_embd", "A"),))
    placed = placed_bytes(replace(header, tensors=tensors), sent, CONTEXT, "x86_64")
    assert placed["A"].weights == sum(tensor.size_bytes for tensor in tensors)
    assert placed["host"].weights == 0


def test_the_host_is_spared_the_second_copy_of_embeddings_whose_product_is_on_a_device(tmp_path: Path) -> None:
    header = read_header(write_dense(tmp_path / "dense.gguf", layers=2))
    tensors = tuple(
        replace(tensor, type="Q4_0") if tensor.name == "token_embd.weight" else tensor for tensor in header.tensors
    )
    moved = ModelWeights(replace(header, tensors=tensors), "x86_64").moved_bytes(LayerPlacement(header, ONE))
    # The embeddings themselves stay, because they are looked up there.
    assert moved == sum(tensor.size_bytes for tensor in tensors)


def test_layers_that_predict_further_tokens_are_not_loaded(tmp_path: Path) -> None:
    header = read_header(write_dense(tmp_path / "dense.gguf", layers=2))
    last = sum(tensor.size_bytes for tensor in header.tensors if tensor.name.startswith("blk.1."))
    heads = {**header.metadata, f"{header.architecture}.nextn_predict_layers": 1}
    whole, without = (
        ModelWeights(each, "aarch64").by_device(LayerPlacement(each, ON_HOST))["host"]
        for each in (header, replace(header, metadata=heads))
    )
    assert whole - without == last > 0


@pytest.mark.parametrize(
    "changes",
    [{"gpu_layers": 9}, {"kv_on_host": True}, {"cpu_moe_layers": 1}, {"tensor_overrides": (("x", "host"),)}],
)
def test_devices_form_a_pipeline_where_they_have_the_whole_model(
    experts: GgufHeader, changes: dict[str, object]
) -> None:
    assert LayerPlacement(experts, BOTH).is_pipeline
    assert not LayerPlacement(experts, ONE).is_pipeline
    less = Placement(devices=("A", "B"), split=(1.0, 1.0), **changes)  # type: ignore[arg-type]
    assert not LayerPlacement(experts, less).is_pipeline


def graph_across() -> StepGraph:
    """An input, an operation of layer 0 on it, and one of layer 1 on both."""
    graph = StepGraph()
    token = graph.input(64)
    graph.layer = 0
    first = graph.operation(128, token)
    graph.layer = 1
    graph.keep(graph.operation(256, first, token))
    return graph


def test_what_crosses_between_devices_is_copied_once() -> None:
    sizes = bytes_by_device(graph_across(), ["host", "A", "B"], "host", is_pipeline=False)
    assert sizes == {"host": 64, "A": 64 + 128, "B": 128 + 64 + 256}


def test_in_a_pipeline_what_crosses_has_places_for_all_steps_underway() -> None:
    sizes = bytes_by_device(graph_across(), ["host", "A", "B"], "host", is_pipeline=True)
    assert sizes == {"host": 64 * COPIES, "A": 64 * COPIES + 128, "B": (128 + 64) * COPIES + 256}


def test_on_one_device_a_step_takes_what_it_takes_on_the_host() -> None:
    sizes = bytes_by_device(graph_across(), ["host"] * 3, "host", is_pipeline=False)
    assert sizes == {"host": graph_across().buffer_bytes()}
