"""Opens llama.cpp's converter for a checkpoint, with corrections.

Its classes for some architectures are adapted, settings that transformers does not save are filled in, and a prediction
head that a checkpoint declares but lacks is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

from modelyard.converter.activation import with_activation
from modelyard.converter.begin_token import with_declared_begin_token
from modelyard.converter.class_position import with_class_position_last
from modelyard.converter.explain import refusal
from modelyard.converter.gemma_3n_tower import with_gemma_3n_tower
from modelyard.converter.heads import declares_head, has_head, headless, without_declared_head
from modelyard.converter.pooler import with_pooler
from modelyard.converter.protocol import Refused
from modelyard.converter.rotary import with_partial_rotation
from modelyard.converter.row_break import with_row_break
from modelyard.converter.settings import text_settings, with_fixed_settings
from modelyard.converter.shared_kv import with_unused_layers
from modelyard.system.reporting_process import report

PRECISIONS: Final = ("f32", "f16", "bf16")

# Corrections of the converter's classes, by architecture.
_ADAPTED: Final = {
    "BambaForCausalLM": with_partial_rotation,
    "BertForSequenceClassification": with_pooler,
    "DeepseekV32ForCausalLM": with_declared_begin_token,
    "Gemma3nForCausalLM": with_unused_layers,
    "Gemma3nForConditionalGeneration": with_unused_layers,
}
_ADAPTED_TOWERS: Final = {
    "Gemma3nForConditionalGeneration": with_gemma_3n_tower,
    "InternVisionModel": with_class_position_last,
}


@contextmanager
def open_converter(
    folder: Path,
    out: Path,
    name: str,
    *,
    precision: str | None = None,
    is_projector: bool = False,
    more_tensors: Iterable[str] = (),
    wrap: Callable[[Any], Any] = lambda model_class: model_class,
) -> Iterator[Any]:
    """Yield llama.cpp's converter for the checkpoint in ``folder``, before it computes anything.

    An exception of the converter within the context becomes a refusal that names the key or tensor.

    Args:
        folder: the folder with the files of the checkpoint.
        out: the file to write.
        name: name of the model in the file.
        precision: "f32", "f16" or "bf16"; None: the precision of most weights.
        is_projector: True converts the vision and audio towers, False the language model.
        more_tensors: names of tensors that the model has in addition to those of the checkpoint.
        wrap: replaces the converter's class.

    Raises:
        Refused: the converter does not support the model, or cannot read it.
    """
    import torch
    from conversion import ModelBase

    # One tensor is computed at a time, so that more threads would only wait for each other.
    torch.set_num_threads(1)
    known = ModelBase.load_hparams(folder, False)
    architecture, model_class = class_of(known, is_projector=is_projector)
    with torch.inference_mode(), explained(architecture):
        hparams = with_fixed_settings(known, architecture)
        if not is_projector and declares_head(hparams, model_class):
            names = chain(_tensor_names(folder), more_tensors)
            if not has_head(names, int(text_settings(hparams).get("num_hidden_layers") or 0)):
                report(notice="The checkpoint lacks the weights of its prediction head (MTP). The head is left out.")
                model_class, hparams = headless(model_class), without_declared_head(hparams)
        yield wrap(model_class)(
            folder,
            _file_type(precision or _published_precision(folder)),
            out,
            # None where nothing changed: some classes then read config.json themselves, differently from ModelBase.
            hparams=None if hparams == known else hparams,
            model_name=name,
            # The dense modules after the pooling of a sentence transformer are part of the model.
            sentence_transformers_dense_modules=True,
        )


@contextmanager
def explained(architecture: str) -> Iterator[None]:
    """Turn an exception of llama.cpp's converter into a refusal that names the key or tensor.

    Raises:
        Refused: the converter failed. Errors of the machine, such as a lack of memory, are raised unchanged.
    """
    try:
        yield
    except (Refused, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:
            raise
        raise refusal(error, architecture) from error


def class_of(hparams: Mapping[str, Any], *, is_projector: bool) -> tuple[str, Any]:
    """Return the architecture of a checkpoint, and the converter's class for it or for its projector.

    Raises:
        Refused: the converter has no class for it.
    """
    from conversion import ModelType, get_model_architecture, get_model_class

    named = ", ".join(hparams.get("architectures") or ["none"])
    try:
        architecture = get_model_architecture(hparams, ModelType.MMPROJ if is_projector else ModelType.TEXT)
        model_class = get_model_class(architecture, mmproj=is_projector)
    except (NotImplementedError, ValueError, KeyError) as unknown:
        part = "vision or audio tower" if is_projector else "architecture"
        raise Refused(
            f"llama.cpp's converter does not know the {part} of this model ({named}). "
            "Look for a published GGUF file of it, or for a newer version of Modelyard."
        ) from unknown
    if is_projector:
        adapt_tower = _ADAPTED_TOWERS.get(architecture, with_row_break)
        return architecture, with_activation(adapt_tower(model_class))
    model_class = _mistral_class(model_class, hparams)
    adapt = _ADAPTED.get(architecture)
    return architecture, model_class if adapt is None else adapt(model_class)


def _mistral_class(model_class: Any, hparams: Mapping[str, Any]) -> Any:
    """Return the class that converts, for a ``model_class`` that delegates to one of two classes of Mistral models.

    Source: llama.cpp, conversion/mistral3.py, Mistral3Model.__init__.
    """
    kind = "Mistral4Model" if text_settings(hparams).get("model_type") == "mistral4" else "Ministral3Model"
    return getattr(model_class, kind, model_class)


def _tensor_names(folder: Path) -> Iterator[str]:
    """Yield the names of the tensors of a checkpoint."""
    from gguf.utility import SafetensorsLocal

    for path in sorted(folder.glob("model*.safetensors")):
        yield from SafetensorsLocal(path).tensors


def _file_type(precision: str) -> Any:
    import gguf

    return gguf.LlamaFileType[{"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}[precision]]


def _published_precision(folder: Path) -> str:
    """Return the commonest float type among the weights of a checkpoint; "bf16" for types that GGUF does not have."""
    from gguf.utility import SafetensorsLocal

    weights: Counter[str] = Counter()
    for path in sorted(folder.glob("model*.safetensors")):
        for tensor in SafetensorsLocal(path).tensors.values():
            weights[tensor.dtype] += tensor.data_range.size
    commonest = weights.most_common(1)[0][0] if weights else "BF16"
    return commonest.lower() if commonest in ("F32", "F16") else "bf16"
