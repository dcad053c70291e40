"""The predicted memory of an embedding model, for headers that the tests make up."""

from __future__ import annotations

from typing import Any

from modelyard.formats.gguf.header import GgufHeader
from modelyard.hub import ModelFiles
from modelyard.protocol.placement import ON_HOST
from modelyard.system.cores import compute_cores
from modelyard.yard.memory.cache_bytes import cell_bytes, kv_bytes
from modelyard.yard.memory.pooling_footprint import pooled_model, pooled_step, predict_embedder
from modelyard.yard.memory.prediction import ENGINE_BYTES, ContextSettings
from modelyard.yard.memory.step_bytes import compute_bytes, graph_bytes, work_bytes
from modelyard.yard.memory.step_operations import Step
from support.gguf_headers import WIDTH, attention, header

TOKENS = 1000


def computing(model: GgufHeader, cells: int, step: int, outputs: int) -> int:
    """Bytes of computation, for the four sequences of these tests."""
    count = 4 if outputs else 1
    buffer = compute_bytes(model, Step(cells, step, count, outputs, has_embeddings=False), count)
    return buffer + graph_bytes(model, step) + work_bytes(model, step, compute_cores())


def of(model: GgufHeader, path: Any, **how: Any) -> int:
    files = ModelFiles((path,), model, 5000, "the only file", "F16", "embedding")
    context = {"context_length": None, "running": 4, "sequences": 4, "batch_tokens": 512} | how
    return predict_embedder(files, ContextSettings(**context)).context_bytes


def encoder(**numbers: Any) -> GgufHeader:
    model = header(*attention(), tokens=TOKENS)
    own = {f"bert.{key.removeprefix('llama.')}": value for key, value in model.metadata.items() if "llama." in key}
    metadata = {**model.metadata, **own, "general.architecture": "bert", **numbers}
    return GgufHeader(3, metadata, model.tensors, model.file_size)


def test_an_encoder_has_no_cache_and_outputs_for_every_token(tmp_path) -> None:
    model = encoder(**{"bert.context_length": 512})
    outputs = 512 * (TOKENS + WIDTH) * 4
    assert of(model, tmp_path / "m") == outputs + computing(model, 512, 512, 0) + ENGINE_BYTES


def test_longer_inputs_take_more_up_to_what_the_model_was_trained_for(tmp_path) -> None:
    model = encoder(**{"bert.context_length": 4096})
    short, default, long, longer = (of(model, tmp_path / "m", context_length=n) for n in (512, None, 4096, 8192))
    assert short < default < long == longer


def test_a_decoder_has_a_cache_and_computes_in_parts(tmp_path) -> None:
    model = header(*attention(), tokens=TOKENS, context_length=4096)
    outputs = 128 * (TOKENS + WIDTH) * 4
    parts = kv_bytes(model, 4096) + cell_bytes(model, 4096) + outputs + computing(model, 4096, 128, 128)
    assert of(model, tmp_path / "m") == parts + ENGINE_BYTES


def test_a_decoder_that_pools_over_all_tokens_computes_whole_inputs(tmp_path) -> None:
    last = header(*attention(), tokens=TOKENS, context_length=2048, pooling_type=3)
    mean = header(*attention(), tokens=TOKENS, context_length=2048, pooling_type=1)
    both_ways = header(*attention(), tokens=TOKENS, context_length=2048, pooling_type=3, attention__causal=False)
    assert of(last, tmp_path / "m") < of(mean, tmp_path / "m") == of(both_ways, tmp_path / "m")


def test_in_a_placement_an_encoder_has_no_cells_and_a_decoder_those_of_all_its_sequences() -> None:
    context = ContextSettings(None, running=4, sequences=4, batch_tokens=512)
    decoder = header(*attention(), tokens=TOKENS, context_length=4096)
    kv = []
    for model in (encoder(**{"bert.context_length": 512}), decoder):
        placed = pooled_model(model, pooled_step(model, context), context)
        kv.append(placed.bytes_of(ON_HOST)["host"].kv)
    assert kv == [0, kv_bytes(decoder, 4096)]
