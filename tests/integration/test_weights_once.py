"""Weights that llama.cpp copies are in memory once, and are what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelyard.engine.llama import Batch, ComputeSettings, Context, Model, Weights, file_pages
from modelyard.hub import FileRequest, resolve
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.system.file_mappings import mappings_of
from modelyard.yard.memory.prediction import ContextSettings, predict
from modelyard.yard.memory.weight_bytes import vocabulary_bytes
from support.gguf_writer import TENSOR_Q4_0, U32, VOCABULARY, Tensor, gguf, model_pairs
from support.mapped_file import PAGE, resident_pages

WIDTH, FEED, LAYERS = 512, 1536, 3
Q4_0_BLOCK = np.dtype([("scale", "<f2"), ("values", "u1", 16)])


@pytest.fixture(scope="module")
def q4_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with drawn weights in blocks that kernels want in another order, and embeddings that are its output."""
    pairs = model_pairs()
    for name, value in (("block_count", LAYERS), ("embedding_length", WIDTH), ("feed_forward_length", FEED)):
        pairs[f"llama.{name}"] = (U32, value)
    pairs |= {"llama.attention.head_count": (U32, 8), "llama.attention.head_count_kv": (U32, 4)}
    pairs["llama.rope.dimension_count"] = (U32, 64)
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, 256), "attn_v": (WIDTH, 256), "attn_output": (WIDTH, WIDTH)}
    shapes |= {"ffn_gate": (WIDTH, FEED), "ffn_up": (WIDTH, FEED), "ffn_down": (FEED, WIDTH)}
    tensors = [
        Tensor("token_embd.weight", (WIDTH, len(VOCABULARY)), TENSOR_Q4_0),
        Tensor("output_norm.weight", (WIDTH,)),
    ]
    for layer in range(LAYERS):
        tensors += [Tensor(f"blk.{layer}.{name}.weight", (WIDTH,)) for name in ("attn_norm", "ffn_norm")]
        tensors += [Tensor(f"blk.{layer}.{name}.weight", shape, TENSOR_Q4_0) for name, shape in shapes.items()]
    content = bytearray(gguf(pairs, tensors))
    place = len(content) - sum(tensor.size for tensor in tensors)
    drawn = np.random.default_rng(1)
    for tensor in tensors:
        if tensor.type == TENSOR_Q4_0:
            blocks = np.zeros(tensor.size // 18, Q4_0_BLOCK)
            blocks["scale"] = 0.02
            blocks["values"] = drawn.integers(0, 256, (len(blocks), 16))
            content[place : place + tensor.size] = blocks.tobytes()
        else:
            content[place : place + tensor.size] = np.ones(WIDTH, np.float32).tobytes()
        place += tensor.size
    path = tmp_path_factory.mktemp("q4_0") / "q4_0.gguf"
    path.write_bytes(content)
    return path


@pytest.fixture
def load(q4_0: Path) -> Iterator[Callable[..., Weights]]:
    """Loads weights that are freed after the test."""
    with ExitStack() as loaded:

        def load(placement: Placement = ON_HOST, **options: Any) -> Weights:
            weights = Weights([q4_0], placement=placement, **({"on_progress": lambda _: True} | options))
            loaded.callback(weights.free)
            return weights

        yield load


def logits(weights: Weights) -> npt.NDArray[np.float32]:
    model = Model(weights)
    context = Context(model, ComputeSettings(threads=2), length=256, slots=1, batch_tokens=32)
    batch = Batch(32)
    assert context.decode(batch, batch.fill(0, list(range(3, 20)), 0, 0, outputs=1)) == Context.DECODED
    found = context.logits(1).copy()
    context.free()
    return found


def resident_bytes(path: Path) -> int:
    return PAGE * sum(sum(resident_pages(mapping)) for mapping in mappings_of([path.resolve()]))


@pytest.mark.parametrize("placement", [ON_HOST, replace(ON_HOST, mlock=True)], ids=["mapped", "locked"])
def test_what_was_copied_leaves_memory_and_answers_stay_the_same(
    q4_0: Path, load: Callable[..., Weights], placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_pages, "STEP_BYTES", 1 << 20)
    resident: list[int] = []

    def on_progress(fraction: float) -> bool:
        resident.append(resident_bytes(q4_0))
        return True

    read, mapped = load(replace(ON_HOST, mmap=False)), load(placement, on_progress=on_progress)
    (embeddings,) = (each.size_bytes for each in resolve(FileRequest(str(q4_0))).header.tensors if "embd" in each.name)
    # Each norm is on a page, or on two.
    assert embeddings <= mapped.mapped_bytes <= embeddings + PAGE * (2 * (2 * LAYERS + 1) + 2)
    # llama.cpp unmaps what precedes the first tensor and follows the last, but for parts of a page.
    assert resident_bytes(q4_0) <= mapped.mapped_bytes + 2 * PAGE
    if not placement.mlock:
        assert sum(before > after for before, after in pairwise(resident)) >= 3
    assert np.array_equal(logits(mapped), logits(read))
    assert resident_bytes(q4_0) <= mapped.mapped_bytes + 2 * PAGE


def test_the_prediction_is_what_stays(q4_0: Path, load: Callable[..., Weights]) -> None:
    files = resolve(FileRequest(str(q4_0)))
    predicted = predict(files, ContextSettings(context_length=256, running=1, sequences=1, batch_tokens=32))
    weights = load()
    header_free = predicted.weights_bytes - vocabulary_bytes(files.header)
    assert weights.allocated_bytes == pytest.approx(header_free, rel=0.03)
    assert weights.device_bytes["host"].weights == weights.allocated_bytes


def test_two_models_on_one_file_in_two_places_leave_each_other_their_pages(
    q4_0: Path, load: Callable[..., Weights]
) -> None:
    first = load(are_repacked=False)
    expected = logits(first)
    (before,) = mappings_of([q4_0.resolve()])
    second = load()
    second.rest()
    assert all(resident_pages(before))
    assert np.array_equal(logits(first), expected)
