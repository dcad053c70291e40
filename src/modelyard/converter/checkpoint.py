"""A safetensors checkpoint in, a GGUF file of full precision out, by llama.cpp's own converter.

    python -m modelyard.converter.checkpoint FOLDER OUT.gguf --name NAME [--type f32|f16|bf16] [--projector]

With ``--projector`` the file is the projector (mmproj) of a multimodal checkpoint, else its language model. The folder
holds the files of the checkpoint alone, and no code: models whose tokenizer is a program are refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modelyard.converter.gguf_write import write
from modelyard.converter.protocol import Refused, run, say
from modelyard.converter.upstream import converting


def main(arguments: list[str]) -> None:
    """Convert as the command line says.

    Raises:
        Refused: the converter does not know the model, or cannot read it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=("f32", "f16", "bf16"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--projector", action="store_true")
    options = parser.parse_args(arguments)
    say(step="reading the checkpoint", fraction=0.0)
    from modelyard.converter.slices import widen_while_reading, write_by_parts

    with converting(
        options.folder, options.out, options.name, precision=options.type, is_projector=options.projector
    ) as model:
        widen_while_reading(model)
        model.prepare_tensors()
        if options.projector and not any(model.gguf_writer.tensors):
            raise Refused(
                "The checkpoint has no weights of a vision or audio tower, although its config.json describes one."
            )
        model.prepare_metadata(vocab_only=False)
        write_by_parts(model.gguf_writer)
        write(model.gguf_writer, options.out)


if __name__ == "__main__":
    sys.exit(run(main))
