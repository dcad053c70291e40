"""Which control vectors are refused before llama.cpp is given their directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.control_vector import check_control_vector, read_directions
from modelyard.formats.gguf.read import read_header
from support.adapters import write_vector
from support.gguf_writer import STR, TENSOR_I32, U32, Tensor, gguf, model_pairs, model_tensors, write

NARROW = [1.0] * 8
WIDE = [0.5] * 32


def base(folder: Path, architecture: str = "llama", layers: int = 3) -> Path:
    pairs = {**model_pairs(architecture), f"{architecture}.block_count": (U32, layers)}
    return write(folder / "base.gguf", gguf(pairs, model_tensors()))


def check(
    folder: Path, directions: Mapping[int, Sequence[float]], layers: tuple[int, int] | None = None, count: int = 3
) -> None:
    vector = write_vector(folder / "vector.gguf", directions)
    check_control_vector(vector, read_header(vector), read_header(base(folder, layers=count)), layers)


def test_the_directions_of_a_file_are_read_by_layer(tmp_path: Path) -> None:
    vector = write_vector(tmp_path / "vector.gguf", {2: [1.0, 2.0, 3.0], 1: [4.0, 5.0, 6.0]})
    assert {layer: list(found) for layer, found in read_directions(vector, read_header(vector)).items()} == {
        1: [4.0, 5.0, 6.0],
        2: [1.0, 2.0, 3.0],
    }
    assert read_header(vector).role == "controlvector"


def test_a_control_vector_that_fits_its_model_is_taken(tmp_path: Path) -> None:
    check(tmp_path, {1: WIDE, 2: WIDE})
    check(tmp_path, {2: WIDE}, layers=(2, 30))


@pytest.mark.parametrize(
    ("directions", "layers", "problem"),
    [
        ({}, None, "no directions"),
        ({1: NARROW}, None, "layer 1 has 8 numbers, but its model computes with 32"),
        ({1: WIDE, 3: WIDE}, None, "a direction for layer 3, but its model has 3 layers"),
        ({0: WIDE}, None, r"'direction\.0' is no direction"),
        ({1: [float("nan")] * 32}, None, "infinite or no numbers"),
        ({1: WIDE}, (2, 2), r"for the layers 1 to 1, and none for layers = \[2, 2\]"),
    ],
)
def test_a_control_vector_that_does_not_fit_is_refused(
    tmp_path: Path, directions: Mapping[int, Sequence[float]], layers: tuple[int, int] | None, problem: str
) -> None:
    with pytest.raises(UnusableModel, match=problem):
        check(tmp_path, directions, layers)


def test_tensors_of_other_names_and_types_are_refused(tmp_path: Path) -> None:
    for tensor, problem in (
        (Tensor("direction.one", (32,)), "no direction"),
        (Tensor("direction.1", (32,), TENSOR_I32), "has the type I32"),
        (Tensor("direction.1", (32, 2)), r"the shape \[32, 2\]"),
    ):
        vector = write(tmp_path / "vector.gguf", gguf({"general.architecture": (STR, "controlvector")}, [tensor]))
        with pytest.raises(UnusableModel, match=problem):
            read_directions(vector, read_header(vector))


def test_a_model_whose_layers_llama_cpp_adds_nothing_to_is_refused(tmp_path: Path) -> None:
    vector = write_vector(tmp_path / "vector.gguf", {1: WIDE})
    header = read_header(base(tmp_path))
    plamo = type(header)(header.version, {**header.metadata, "general.architecture": "plamo2"}, header.tensors, 0)
    with pytest.raises(UnusableModel, match="applies none to models of the architecture 'plamo2'"):
        check_control_vector(vector, read_header(vector), plamo)


@pytest.mark.parametrize("missing", [2, 8])
def test_a_control_vector_that_is_cut_off_after_its_header_was_read_is_refused(tmp_path: Path, missing: int) -> None:
    vector = write_vector(tmp_path / "vector.gguf", {1: WIDE})
    header = read_header(vector)
    vector.write_bytes(vector.read_bytes()[: header.data_start + 4 * len(WIDE) - missing])
    with pytest.raises(UnusableModel, match=r"'direction\.1' is cut off"):
        read_directions(vector, header)
