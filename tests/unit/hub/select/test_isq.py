"""The types of GGUF files that levels of quantisation map to."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import FileRequest, Stores, plan_files
from modelyard.hub.select.isq import BITS, NEEDS_IMATRIX, target_of

NUMBERS = ("2", "3", "4", "5", "6", "8")
OF_GGUF = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2k", "q3k", "q4k", "q5k", "q6k")
NEAREST = ("q8_1", "q8k", "hqq4", "hqq8", "fp8", "f8q8", "mxfp4", "afq2", "afq3", "afq4", "afq6", "afq8")


@pytest.mark.parametrize("name", [*NUMBERS, *OF_GGUF, *NEAREST])
def test_every_name_of_the_reference_is_a_type_of_gguf(name: str):
    target = target_of(f" {name.upper()} ")
    assert target.label in BITS
    assert target.file_type >= 0
    assert not target.is_full_precision
    assert target.label not in NEEDS_IMATRIX


@pytest.mark.parametrize("name", [*NUMBERS, *OF_GGUF])
def test_what_gguf_has_needs_no_words(name: str):
    assert target_of(name).notice == ""


@pytest.mark.parametrize("name", NEAREST)
def test_what_gguf_does_not_have_becomes_the_nearest_and_says_so(name: str, tmp_path: Path):
    target = target_of(name)
    assert target.notice.startswith(f"{name} becomes {target.label}: ")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    assert target.notice in plan_files(FileRequest(str(tmp_path), isq=name), Stores()).decision.reasons[-1]


@pytest.mark.parametrize("name", [*NUMBERS, *OF_GGUF, *NEAREST])
def test_a_level_has_about_the_bits_in_its_name(name: str):
    bits = int(next(character for character in name.replace("f8q8", "8") if character.isdigit()))
    assert bits <= BITS[target_of(name).label] < bits + 1.5


@pytest.mark.parametrize("label", sorted(BITS))
def test_every_type_of_a_whole_file_can_be_asked_for_by_its_label(label: str):
    assert target_of(label).label == label
    assert target_of(label.lower()).label == label


@pytest.mark.parametrize("name", ["", "7", "1", "auto", "int4", "q4_x", "fp4"])
def test_anything_else_is_refused_with_a_choice(name: str):
    with pytest.raises(UnusableModel, match=r"is nothing that weights can be quantised to. Choose one of 2, 3, 4, 5"):
        target_of(name)
