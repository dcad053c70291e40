"""Converts the projector of a checkpoint, together with a language model or by itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelyard.converter.gguf_write import write
from modelyard.converter.protocol import Refused
from modelyard.converter.upstream import PRECISIONS, open_converter


def add_projector(parser: argparse.ArgumentParser) -> None:
    """Add the command-line options that ``write_projector`` reads."""
    parser.add_argument("--projector", type=Path)
    parser.add_argument("--projector-type", choices=PRECISIONS)


def write_projector(options: argparse.Namespace, *, is_required: bool) -> None:
    """Write the projector of the checkpoint in ``options.folder``, if the options name an output for it.

    A projector that is not required and cannot be converted is left out, so that the language model, written before
    it, is not lost. Converting the projector alone reports the reason.

    Raises:
        Refused: the projector is required, and the converter cannot convert it.
    """
    if options.projector is None:
        return
    try:
        _write(options.folder, options.projector, options.name, options.projector_type)
    except Refused:
        options.projector.unlink(missing_ok=True)
        if is_required:
            raise


def _write(folder: Path, out: Path, name: str, precision: str | None) -> None:
    from modelyard.converter.slices import widen_while_reading, write_by_parts

    with open_converter(folder, out, name, precision=precision, is_projector=True) as model:
        widen_while_reading(model)
        model.prepare_tensors()
        if not any(model.gguf_writer.tensors):
            raise Refused(
                "The checkpoint has no weights of a vision or audio tower, although its config.json describes one."
            )
        model.prepare_metadata(vocab_only=False)
        write_by_parts(model.gguf_writer)
        write(model.gguf_writer, out)
