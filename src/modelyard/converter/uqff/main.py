"""A UQFF model in, a GGUF file out whose quantised weights are those of the UQFF.

    python -m modelyard.converter.uqff.main FOLDER OUT.gguf --name NAME SHARD.uqff...
        [--projector PROJECTOR.gguf --projector-type f32|f16|bf16]

The folder holds the shards, the configuration, the tokenizer, and as ``model*.safetensors`` the weights that the shards
leave out. Upstream's own converter says what each weight is called in GGUF, and which of its rows goes where.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from modelyard.converter.gguf_write import write
from modelyard.converter.projector import add_projector, write_projector
from modelyard.converter.protocol import Refused, run, say
from modelyard.converter.upstream import converting
from modelyard.errors import UnusableModel
from modelyard.formats.uqff.reader import read_uqff


def main(arguments: list[str]) -> None:
    """Convert as the command line says.

    Raises:
        Refused: the converter does not know the model, or the shards are damaged.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("shards", nargs="+")
    add_projector(parser)
    options = parser.parse_args(arguments)
    say(step="reading the UQFF", fraction=0.0)
    try:
        layers = read_uqff(options.folder / name for name in options.shards)
    except UnusableModel as unusable:
        raise Refused(str(unusable)) from unusable
    _without_nulls(options.folder / "tokenizer_config.json")
    from modelyard.converter.uqff.model import with_layers

    with converting(
        options.folder,
        options.out,
        options.name,
        more_tensors=[f"{layer.prefix}.weight" for layer in layers],
        wrap=lambda model_class: with_layers(model_class, layers),
    ) as model:
        model.prepare_tensors()
        model.ftype = _file_type(model.gguf_writer)
        model.prepare_metadata(vocab_only=False)
        for notice in model.placement.notices():
            say(notice=notice)
        write(model.gguf_writer, options.out)
    write_projector(options, is_required=False)


def _without_nulls(settings: Path) -> None:
    """Drop what mistral.rs writes as null and transformers takes for a table, in a link's place."""
    if settings.is_symlink():
        given = json.loads(settings.read_text("utf-8"))
        settings.unlink()
        settings.write_text(json.dumps({key: value for key, value in given.items() if value is not None}), "utf-8")


# A file is called after the type that most of its weights have; of K-quants, those of one type alone are "small".
_FILE_TYPES = {
    "Q2_K": "MOSTLY_Q2_K",
    "Q3_K": "MOSTLY_Q3_K_S",
    "Q4_K": "MOSTLY_Q4_K_S",
    "Q5_K": "MOSTLY_Q5_K_S",
    "F32": "ALL_F32",
    "MXFP4": "MOSTLY_MXFP4_MOE",
}


# What is mostly stored in more bits than the rest, and outweighs it in small models.
_SENSITIVE = ("token_embd.weight", "output.weight")


def _file_type(writer: Any) -> Any:
    """The GGUF type of a file in which most weights are of the type that most are of here."""
    import gguf

    weights: Counter[str] = Counter()
    for shard in writer.tensors:
        for name, tensor in shard.items():
            if name not in _SENSITIVE:
                block, size = gguf.GGML_QUANT_SIZES[tensor.dtype]
                weights[tensor.dtype.name] += tensor.nbytes // size * block
    (commonest, _), *_ = weights.most_common(1)
    return gguf.LlamaFileType[_FILE_TYPES.get(commonest, f"MOSTLY_{commonest}")]


if __name__ == "__main__":
    sys.exit(run(main))
