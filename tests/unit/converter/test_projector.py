"""A projector that cannot be converted does not make the conversion of its language model fail."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from modelyard.converter import projector
from modelyard.converter.protocol import Refused


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Options for a checkpoint whose projector the converter refuses while it writes it."""

    def refuse(_folder: Path, out: Path, _name: str, _precision: str | None) -> None:
        out.write_bytes(b"half of it")
        raise Refused("It has no weights of a tower.")

    monkeypatch.setattr(projector, "_write", refuse)
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name")
    projector.add_projector(parser)
    return parser.parse_args([str(tmp_path), "--name", "x", "--projector", str(tmp_path / "mmproj.gguf")])


def test_one_that_cannot_be_made_is_left_out_beside_a_model(options: argparse.Namespace) -> None:
    projector.write_projector(options, is_required=False)
    assert not options.projector.exists()


def test_one_that_is_asked_for_alone_is_refused_with_the_reason(options: argparse.Namespace) -> None:
    with pytest.raises(Refused, match="no weights of a tower"):
        projector.write_projector(options, is_required=True)
    assert not options.projector.exists()


def test_where_none_is_named_none_is_made(options: argparse.Namespace) -> None:
    options.projector = None
    projector.write_projector(options, is_required=True)
