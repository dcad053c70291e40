"""The rules about which weights a model is served from: its quantisation and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.config.quantization_names import ISQ_NAMES, QUANT_NAMES
from modelyard.config.tables import label
from modelyard.config.wording import shown
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelyard.config.model import Model


def bad_quantisation(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that ``quant`` and ``isq`` are known names, and that only one way to the weights is chosen."""
    problems = []
    for number, model in models.items():
        where = label(("models", "quantization"), number, model.model_id)
        location = ("models", number - 1, "quantization")
        chosen = model.quantization
        for key, name, known in (("quant", chosen.quant, QUANT_NAMES), ("isq", chosen.isq, ISQ_NAMES)):
            if name is not None and name not in known:
                problems.append(
                    ConfigProblem(
                        f"{key} {shown(name)} is not a known quantisation.",
                        f"Choose one of {', '.join(known)}.",
                        table=where,
                        location=(*location, key),
                    )
                )
        given = [key for key in ("quant", "isq", "from_uqff") if getattr(chosen, key) is not None]
        if len(given) > 1:
            problems.append(
                ConfigProblem(
                    f"{' and '.join(given)} exclude each other.",
                    "Keep one of them.",
                    table=where,
                    location=(*location, given[-1]),
                    related=tuple((*location, key) for key in given[:-1]),
                )
            )
        if given and (named := _named_weights(model)):
            problems.append(
                ConfigProblem(
                    f"{given[0]} and {named} exclude each other.",
                    "Keep one of them.",
                    table=where,
                    location=(*location, given[0]),
                    related=(("models", number - 1, "model_id"),),
                )
            )
    return problems


def _named_weights(model: Model) -> str:
    """Return what ``model_id`` itself says about the weights, for a message; "" if that is nothing but ``quant``."""
    reference = model.reference
    if reference.file is not None:
        return f"the file {shown(reference.file)} in model_id"
    if reference.quant in (None, model.quantization.quant):
        return ""
    return f"the tag {shown(reference.quant)} in model_id"


def bad_format(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that the keys of ``[models.format]`` are compatible with each other and with the way to the weights."""
    return [
        ConfigProblem(
            message,
            hint,
            table=label(("models", "format"), number, model.model_id),
            location=("models", number - 1, *keys[0]),
            related=tuple(("models", number - 1, *key) for key in keys[1:]),
        )
        for number, model in models.items()
        for message, hint, *keys in _format_problems(model)
    ]


def _format_problems(model: Model) -> Iterator[tuple[str, str, *tuple[tuple[str, ...], ...]]]:
    """Yield message, hint, and the keys within the model's table, the one at fault first."""
    given, names = model.format, model.format.quantized_files
    file, projector, form = ("format", "quantized_file"), ("format", "mmproj"), ("format", "format")
    has_old_file = any(name.lower().endswith((".ggml", ".bin")) for name in names)
    if given.format == "ggml" or has_old_file:
        message = "GGML is the format before GGUF, which llama.cpp no longer reads."
        yield message, "Name a GGUF file of the model.", file if has_old_file else form
        return
    if given.quantized_file is not None and not names:
        yield "quantized_file names no file.", "Name a GGUF file, or remove it.", file
    for key, name in (*((file, name) for name in names), (projector, given.mmproj)):
        if name is not None and not name.lower().endswith(".gguf"):
            yield f"{key[-1]} {shown(name)} must be a GGUF file: its name must end in .gguf.", "", key
    if given.format == "plain":
        for key in (file, projector):
            if getattr(given, key[-1]) is not None:
                message = f'format "plain" is full precision in safetensors, and {key[-1]} is GGUF.'
                yield message, "Keep one of them.", key, form
        if model.source.lower().endswith(".gguf"):
            message = f'format "plain" is full precision in safetensors, and {shown(model.model_id)} is GGUF.'
            yield message, "", form, ("model_id",)
    if names and (model.source.lower().endswith(".gguf") or model.reference.file is not None):
        message = "quantized_file names a file of a folder or repository, and model_id names a file already."
        yield message, "", file, ("model_id",)
    for name in ("quant", "isq", "from_uqff"):
        if names and getattr(model.quantization, name) is not None:
            message = f"quantized_file and {name} exclude each other: the file that is named is served as it is."
            yield message, "Keep one of them.", file, ("quantization", name)
    if given.mmproj is not None and model.kind in ("embedding", "rerank"):
        message = f"mmproj is for models that see or hear, not for kind = '{model.kind}'."
        yield message, "Keep one of them.", projector, ("kind",)
