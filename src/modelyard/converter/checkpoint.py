"""Converts a safetensors checkpoint to GGUF files of full precision with llama.cpp's converter.

    python -m modelyard.converter.checkpoint FOLDER OUT.gguf --name NAME [--type f32|f16|bf16]
        [--projector PROJECTOR.gguf --projector-type f32|f16|bf16]
    python -m modelyard.converter.checkpoint FOLDER --name NAME --projector …

OUT is the language model, PROJECTOR the projector (mmproj) of a multimodal checkpoint. The folder holds the files of
the checkpoint and no code: models whose tokenizer is a program are refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modelyard.converter.gguf_write import write
from modelyard.converter.projector import add_projector, write_projector
from modelyard.converter.protocol import run
from modelyard.converter.upstream import PRECISIONS, open_converter
from modelyard.system.reporting_process import report


def main(arguments: list[str]) -> None:
    """Convert the checkpoint that the command line names.

    Raises:
        Refused: the converter does not support the model, or cannot read it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--type", choices=PRECISIONS)
    parser.add_argument("--name", required=True)
    add_projector(parser)
    options = parser.parse_args(arguments)
    report(step="reading the checkpoint", fraction=0.0)
    if options.out is not None:
        _write_model(options)
    write_projector(options, is_required=options.out is None)


def _write_model(options: argparse.Namespace) -> None:
    from modelyard.converter.slices import widen_while_reading, write_by_parts

    with open_converter(options.folder, options.out, options.name, precision=options.type) as model:
        widen_while_reading(model)
        model.prepare_tensors()
        model.prepare_metadata(vocab_only=False)
        write_by_parts(model.gguf_writer)
        write(model.gguf_writer, options.out)


if __name__ == "__main__":
    sys.exit(run(main))
