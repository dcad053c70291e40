"""Importance matrices are honoured, and what is no good one is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_file import GgufFile
from numpy.typing import NDArray

from modelyard.errors import UnusableModel
from modelyard.hub import ConvertedModels, FileRequest, Stores, resolve
from support.importance import WIDTH, square_model, write_gguf, write_legacy

Columns = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "square.gguf"
    square_model(path)
    return path


@pytest.fixture
def columns(model: Path) -> Columns:
    """In each block that shares a scale, one of two columns matters, and the other hardly."""
    importance = np.where(np.arange(WIDTH) % 2 == 0, 100.0, 0.01).astype(np.float32)
    return {t.name: importance for t in GgufFile(model).tensors if t.name.startswith("blk") and len(t.shape) == 2}


@pytest.fixture
def quantized(model: Path, tmp_path: Path) -> Callable[..., Path]:
    stores = Stores(converted=ConvertedModels(tmp_path / "converted"))

    def quantize(level: str, imatrix: Path | None = None) -> Path:
        return resolve(FileRequest(str(model), isq=level, imatrix=imatrix), stores).paths[0]

    return quantize


def errors(model: Path, made: Path) -> tuple[float, float]:
    """Mean square error of the weights of a layer: of the columns that matter, and of the others."""
    from gguf.quants import dequantize

    name = "blk.0.ffn_gate.weight"
    original = next(t.data for t in GgufFile(model).tensors if t.name == name).astype(np.float32)
    tensor = next(t for t in GgufFile(made).tensors if t.name == name)
    wrong = (dequantize(tensor.data, tensor.tensor_type).reshape(original.shape) - original) ** 2
    return float(wrong[:, ::2].mean()), float(wrong[:, 1::2].mean())


@pytest.mark.parametrize("write", [write_legacy, write_gguf])
def test_weights_that_matter_are_kept_better(
    model: Path, columns: Columns, quantized: Callable[..., Path], tmp_path: Path, write: Callable[..., Path]
):
    plain = errors(model, quantized("q2k"))
    weighed = errors(model, quantized("q2k", write(tmp_path / "imatrix", columns)))
    assert weighed[0] < plain[0]
    assert weighed[1] > plain[1]


def test_types_that_need_one_work_with_it_and_are_refused_without(
    columns: Columns, quantized: Callable[..., Path], tmp_path: Path
):
    with pytest.raises(UnusableModel, match=r"llama.cpp makes IQ2_XXS only with an importance matrix. Set imatrix"):
        quantized("iq2_xxs")
    made = quantized("iq2_xxs", write_legacy(tmp_path / "imatrix", columns))
    kinds = {t.name: t.tensor_type.name for t in GgufFile(made).tensors}
    assert kinds["blk.0.ffn_gate.weight"] == "IQ2_XXS"


def test_one_that_leaves_out_weights_that_need_it_is_refused(
    columns: Columns, quantized: Callable[..., Path], tmp_path: Path
):
    del columns["blk.0.ffn_gate.weight"]
    with pytest.raises(UnusableModel, match=r"Missing importance matrix for tensor blk.0.ffn_gate.weight"):
        quantized("iq2_xxs", write_legacy(tmp_path / "imatrix", columns))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, values: (f"x.{name}", values), "of another model: it names none of these weights"),
        (lambda name, values: (name, values[1:]), "of another model: it has 255 columns for blk.0"),
        (lambda name, values: (name, values * np.float32("nan")), "is not a number"),
        (lambda name, values: (name, -values), "negative"),
        (lambda name, values: (name, values * 0), "nothing at all"),
    ],
    ids=["other names", "other sizes", "nan", "negative", "zero"],
)
def test_one_that_does_not_fit_the_model_is_refused(
    columns: Columns,
    quantized: Callable[..., Path],
    tmp_path: Path,
    change: Callable[..., tuple[str, object]],
    words: str,
):
    changed = dict(change(name, values) for name, values in columns.items())
    with pytest.raises(UnusableModel, match=words):
        quantized("q4k", write_legacy(tmp_path / "imatrix", changed))


@pytest.mark.parametrize(("write", "size"), [(write_legacy, 3), (write_legacy, -1), (write_gguf, 100)])
def test_a_damaged_one_is_refused(
    columns: Columns, quantized: Callable[..., Path], tmp_path: Path, write: Callable[..., Path], size: int
):
    path = write(tmp_path / "imatrix", columns)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UnusableModel, match=r"imatrix: This is no importance matrix, or it is damaged"):
        quantized("q4k", path)
