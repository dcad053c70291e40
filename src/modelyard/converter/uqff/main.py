"""Converts a UQFF model to a GGUF file with the same quantised weights.

    python -m modelyard.converter.uqff.main FOLDER OUT.gguf --name NAME SHARD.uqff...
        [--projector PROJECTOR.gguf --projector-type f32|f16|bf16]

The folder holds the shards, the configuration, the tokenizer, and as ``model*.safetensors`` the weights that the shards
leave out. llama.cpp's converter determines the GGUF name of each weight and the order of its rows.
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
from modelyard.converter.protocol import Refused, run
from modelyard.converter.upstream import open_converter
from modelyard.errors import UnusableModel
from modelyard.formats.uqff.reader import read_uqff
from modelyard.system.reporting_process import report


def main(arguments: list[str]) -> None:
    """Convert the model that the command line names.

    Raises:
        Refused: the converter does not support the model, or the shards are damaged.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("shards", nargs="+")
    add_projector(parser)
    options = parser.parse_args(arguments)
    report(step="reading the UQFF", fraction=0.0)
    try:
        layers = read_uqff(options.folder / name for name in options.shards)
    except UnusableModel as unusable:
        raise Refused(str(unusable)) from unusable
    _without_nulls(options.folder / "tokenizer_config.json")
    from modelyard.converter.uqff.model import with_layers

    with open_converter(
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
            report(notice=notice)
        write(model.gguf_writer, options.out)
    write_projector(options, is_required=False)


def _without_nulls(settings: Path) -> None:
    """Remove entries that mistral.rs writes as null and transformers expects to be tables.

    The file is a link to the user's file, and is replaced by a copy.
    """
    if settings.is_symlink():
        entries = json.loads(settings.read_text("utf-8"))
        settings.unlink()
        settings.write_text(json.dumps({key: value for key, value in entries.items() if value is not None}), "utf-8")


# File types by the type of most weights, where the names differ. For K-quants, "S" means a single type throughout.
_FILE_TYPES = {
    "Q2_K": "MOSTLY_Q2_K",
    "Q3_K": "MOSTLY_Q3_K_S",
    "Q4_K": "MOSTLY_Q4_K_S",
    "Q5_K": "MOSTLY_Q5_K_S",
    "F32": "ALL_F32",
    "MXFP4": "MOSTLY_MXFP4_MOE",
}

# Tensors that are mostly stored in more bits than the others, and have most weights of a small model.
_SENSITIVE = ("token_embd.weight", "output.weight")


def _file_type(writer: Any) -> Any:
    """Return the GGUF file type for the type of most weights, without embeddings and the output layer."""
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
