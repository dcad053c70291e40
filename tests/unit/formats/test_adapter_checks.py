"""Which adapters are refused before llama.cpp sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.adapter_checks import check_adapter
from modelyard.formats.gguf.read import read_header
from support.adapters import adapter_pairs, matrices
from support.gguf_writer import F64, STR, TENSOR_I32, U32, Tensor, array, gguf, model_pairs, model_tensors, write

QUERY = matrices("blk.0.attn_q.weight", (32, 32), 4)
EMBEDDING = [Tensor("token_embd.weight.lora_a", (4, 264)), Tensor("token_embd.weight.lora_b", (4, 32))]


def check(
    folder: Path,
    tensors: Sequence[Tensor] = QUERY,
    changes: dict[str, tuple[int, Any]] | None = None,
    further: Sequence[Tensor] = (),
) -> None:
    """Check an adapter of a tiny model, of which ``changes`` are keys and ``further`` are tensors of the model."""
    base = write(folder / "base.gguf", gguf(model_pairs(), [*model_tensors(), *further]))
    adapter = write(folder / "adapter.gguf", gguf({**adapter_pairs(), **(changes or {})}, tensors))
    check_adapter(adapter, read_header(adapter), [read_header(base)])


def test_an_adapter_that_fits_its_model_is_taken(tmp_path: Path) -> None:
    check(tmp_path, [*QUERY, *matrices("blk.0.ffn_down.weight", (32, 32), 8), Tensor("blk.0.attn_norm.weight", (32,))])


def test_an_adapter_of_the_embedding_is_taken_where_the_output_has_weights_of_its_own(tmp_path: Path) -> None:
    check(tmp_path, EMBEDDING, further=[Tensor("output.weight", (32, 264))])


def test_an_adapter_of_experts_has_matrices_for_each(tmp_path: Path) -> None:
    experts = [Tensor("blk.0.ffn_up_exps.weight", (32, 32, 4))]
    a, b = Tensor("blk.0.ffn_up_exps.weight.lora_a", (32, 2, 4)), Tensor("blk.0.ffn_up_exps.weight.lora_b", (2, 32, 4))
    check(tmp_path, [a, b], further=experts)
    with pytest.raises(UnusableModel, match="do not fit"):
        check(tmp_path, [a, Tensor(b.name, (2, 32, 3))], further=experts)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ([], "no matrices"),
        (QUERY[:1], "only one of the two matrices for 'blk.0.attn_q.weight'"),
        (matrices("blk.7.attn_q.weight", (32, 32), 4), "'blk.7.attn_q.weight', which its base model does not have"),
        (matrices("blk.0.attn_q.weight", (64, 32), 4), r"\[64, 4\] and \[4, 32\], which do not fit \[32, 32\]"),
        (matrices("blk.0.attn_q.weight", (32, 64), 4), "do not fit"),
        ([QUERY[0], Tensor("blk.0.attn_q.weight.lora_b", (8, 32))], "do not fit"),
        (matrices("blk.0.attn_norm.weight", (32, 1), 4), "do not fit"),
        (EMBEDDING, "also uses in another place"),
        ([*QUERY, Tensor("blk.0.attn_q.weight.delta", (32, 32))], "is no tensor of a LoRA adapter"),
        ([Tensor(each.name, each.shape, TENSOR_I32) for each in QUERY], "has the type I32"),
    ],
)
def test_an_adapter_whose_matrices_do_not_fit_is_refused(
    tmp_path: Path, tensors: Sequence[Tensor], problem: str
) -> None:
    with pytest.raises(UnusableModel, match=problem):
        check(tmp_path, tensors)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"general.architecture": (STR, "gemma3")}, "architecture 'gemma3', but its base model has 'llama'"),
        ({"general.type": (STR, "imatrix")}, "'general.type' is 'imatrix'"),
        ({"adapter.type": (STR, "ia3")}, "only LoRA adapters"),
        ({"adapter.type": (U32, 1)}, "type u32, but must be a text"),
        ({"adapter.lora.alpha": (F64, 16.0)}, "type f64, but must be f32"),
        ({"adapter.lora.alpha": (6, float("nan"))}, "must be a number"),
        ({"adapter.alora.invocation_tokens": array(U32, [1, 2])}, "activated LoRA"),
    ],
)
def test_an_adapter_with_a_header_that_llama_cpp_cannot_read_is_refused(
    tmp_path: Path, changes: dict[str, tuple[int, Any]], problem: str
) -> None:
    with pytest.raises(UnusableModel, match=problem):
        check(tmp_path, changes=changes)


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    whole = gguf(adapter_pairs(), QUERY)
    for length in (0, 3, 20, len(whole) // 2, len(whole) - 40):
        with pytest.raises(UnusableModel):
            read_header(write(tmp_path / "adapter.gguf", whole[:length]))
