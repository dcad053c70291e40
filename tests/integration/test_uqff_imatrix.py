"""Importance matrices, which have GGUF's names, on the way to UQFF, which has the checkpoint's."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from modelyard.converter.uqff.blocks import dequantize
from modelyard.errors import UnusableModel
from modelyard.formats.uqff.reader import read_uqff
from modelyard.hub import FileRequest, Stores, UqffExport, export_uqff
from support.tiny_checkpoint import HIDDEN, make_tiny_checkpoint

PREFIX = "model.layers.0.self_attn.q_proj"


def legacy_imatrix(path: Path, entries: dict[str, np.ndarray]) -> Path:
    """A file of the older format: a count, then name, calls and sums of each entry."""
    data = struct.pack("<i", len(entries))
    for name, values in entries.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, len(values))
        data += values.astype("<f4").tobytes()
    path.write_bytes(data)
    return path


def q_proj(tmp_path: Path, name: str, imatrix: Path | None) -> np.ndarray:
    wanted = FileRequest(str(tmp_path / "Tiny"), imatrix=imatrix)
    shards = export_uqff(wanted, UqffExport(("q2k",), tmp_path / name), Stores(), lambda _: True)
    return np.asarray(dequantize(next(layer for layer in read_uqff(shards) if layer.prefix == PREFIX)))


def test_the_columns_that_matter_are_met_better(tmp_path: Path):
    weights = make_tiny_checkpoint(tmp_path / "Tiny")[f"{PREFIX}.weight"].astype(np.float32)
    importance = np.full(HIDDEN, 1e-3)
    importance[::16] = 1.0
    imatrix = legacy_imatrix(tmp_path / "imatrix.dat", {"blk.0.attn_q.weight": importance})
    with_it, without = (
        np.square(q_proj(tmp_path, name, given) - weights)[:, ::16].mean()
        for name, given in (("with", imatrix), ("without", None))
    )
    assert with_it < without


@pytest.mark.parametrize(
    ("name", "columns", "complaint"),
    [
        ("blk.0.attn_q.weight", np.ones(HIDDEN // 2), r"128 columns for .* which has 256: .* another model"),
        ("blk.7.attn_q.weight", np.ones(HIDDEN), "has none of the layers of this model"),
        ("blk.0.attn_q.weight", np.full(HIDDEN, np.nan), "is not a number"),
    ],
)
def test_what_is_no_measurement_of_this_model_is_refused(
    name: str, columns: np.ndarray, complaint: str, tmp_path: Path
):
    make_tiny_checkpoint(tmp_path / "Tiny")
    imatrix = legacy_imatrix(tmp_path / "imatrix.dat", {name: columns})
    with pytest.raises(UnusableModel, match=complaint):
        q_proj(tmp_path, "out", imatrix)
    assert not (tmp_path / "out").exists()
