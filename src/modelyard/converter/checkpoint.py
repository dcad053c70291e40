"""A safetensors checkpoint in, a GGUF file of full precision out, by llama.cpp's own converter.

    python -m modelyard.converter.checkpoint FOLDER OUT.gguf --name NAME [--type f32|f16|bf16] [--projector]

With ``--projector`` the file is the projector (mmproj) of a multimodal checkpoint, else its language model. The folder
holds the files of the checkpoint alone, and no code: models whose tokenizer is a program are refused.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from modelyard.converter.activation import with_activation
from modelyard.converter.begin_token import with_declared_begin_token
from modelyard.converter.class_position import with_class_position_last
from modelyard.converter.explain import refusal
from modelyard.converter.heads import declares_head, has_head, headless, without_declared_head
from modelyard.converter.pooler import with_pooler
from modelyard.converter.protocol import Refused, run, say
from modelyard.converter.rotary import with_partial_rotation
from modelyard.converter.row_break import with_row_break
from modelyard.converter.settings import with_fixed_settings

_LOOK_S: Final = 0.2

# What the converter's classes for some architectures lack.
_ADAPTED: Final = {
    "BambaForCausalLM": with_partial_rotation,
    "BertForSequenceClassification": with_pooler,
    "DeepseekV32ForCausalLM": with_declared_begin_token,
}
_ADAPTED_TOWERS: Final = {"InternVisionModel": with_class_position_last}


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
    import torch
    from conversion import ModelBase

    from modelyard.converter.slices import widen_while_reading, write_by_parts

    # Only one tensor at a time is there: threads would wait for each other.
    torch.set_num_threads(1)
    architecture, model_class = model_class_of(options.folder, is_projector=options.projector)
    with torch.inference_mode(), explained(architecture):
        known = ModelBase.load_hparams(options.folder, False)
        hparams = with_fixed_settings(known, architecture)
        if not options.projector and _lacks_declared_head(hparams, model_class, options.folder):
            say(notice="The checkpoint lacks the weights of its prediction head (MTP). The head is left out.")
            model_class, hparams = headless(model_class), without_declared_head(hparams)
        model = model_class(
            options.folder,
            _file_type(options.type, options.folder),
            options.out,
            # Some classes read config.json by themselves, and otherwise than ModelBase, unless they are given another.
            hparams=None if hparams == known else hparams,
            model_name=options.name,
            # Modules that follow the pooling of a sentence transformer are part of the model.
            sentence_transformers_dense_modules=True,
        )
        # The class for several kinds of Mistral hands everything on to the one of the checkpoint's kind.
        model = getattr(model, "impl", model)
        widen_while_reading(model)
        model.prepare_tensors()
        if options.projector and not any(model.gguf_writer.tensors):
            raise Refused(
                "The checkpoint has no weights of a vision or audio tower, although its config.json describes one."
            )
        model.prepare_metadata(vocab_only=False)
        write_by_parts(model.gguf_writer)
        write(model.gguf_writer, options.out)


@contextmanager
def explained(architecture: str) -> Iterator[None]:
    """Turns what llama.cpp's converter raises into a refusal that names the key or tensor.

    Raises:
        Refused: the converter failed, for any reason but those of the machine.
    """
    try:
        yield
    except (Refused, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:
            raise
        raise refusal(error, architecture) from error


def model_class_of(folder: Path, *, is_projector: bool = False) -> tuple[str, Any]:
    """The architecture of the checkpoint in a folder, and the converter's class for it, or for its projector.

    Raises:
        Refused: it knows none.
    """
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    hparams = ModelBase.load_hparams(folder, False)
    named = ", ".join(hparams.get("architectures") or ["none"])
    try:
        architecture = get_model_architecture(hparams, ModelType.MMPROJ if is_projector else ModelType.TEXT)
        model_class = get_model_class(architecture, mmproj=is_projector)
    except (NotImplementedError, ValueError, KeyError) as unknown:
        part = "vision or audio tower" if is_projector else "architecture"
        raise Refused(
            f"llama.cpp's converter does not know the {part} of this model ({named}). "
            "Look for a GGUF file that somebody has made of it, or for a newer version of Modelyard."
        ) from unknown
    if is_projector:
        adapt_tower = _ADAPTED_TOWERS.get(architecture, with_row_break)
        return architecture, with_activation(adapt_tower(model_class))
    adapt = _ADAPTED.get(architecture)
    return architecture, model_class if adapt is None else adapt(model_class)


def _lacks_declared_head(hparams: Mapping[str, Any], model_class: Any, folder: Path) -> bool:
    """Whether the converter will look for a prediction head (MTP) that the weights do not have."""
    from gguf.utility import SafetensorsLocal

    if not declares_head(hparams, model_class):
        return False
    facts = {**hparams, **(hparams.get("text_config") or {})}
    names = [name for path in sorted(folder.glob("model*.safetensors")) for name in SafetensorsLocal(path).tensors]
    return not has_head(names, int(facts.get("num_hidden_layers") or 0))


def _file_type(name: str | None, folder: Path) -> Any:
    """The precision that was asked for, or else that of most weights."""
    import gguf

    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    }
    return types[name or published_precision(folder)]


def published_precision(folder: Path) -> str:
    """The commonest floating-point type among the weights of a checkpoint; "bf16" for types that GGUF does not have."""
    from collections import Counter

    from gguf.utility import SafetensorsLocal

    weights: Counter[str] = Counter()
    for path in sorted(folder.glob("model*.safetensors")):
        for tensor in SafetensorsLocal(path).tensors.values():
            weights[tensor.dtype] += tensor.data_range.size
    commonest = weights.most_common(1)[0][0] if weights else "BF16"
    return commonest.lower() if commonest in ("F32", "F16") else "bf16"


def write(writer: Any, out: Path) -> None:
    """Write the file, saying how much of it is there."""
    total = sum(tensor.nbytes for shard in writer.tensors for tensor in shard.values())
    is_written = threading.Event()

    def report() -> None:
        while not is_written.wait(_LOOK_S):
            if out.exists():
                say(step="converting", fraction=min(1.0, out.stat().st_size / max(1, total)))

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        writer.write_header_to_file(path=out)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    finally:
        is_written.set()
        reporter.join()


if __name__ == "__main__":
    sys.exit(run(main))
