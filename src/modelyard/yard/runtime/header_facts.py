"""Facts about a model that the header of its file has, before the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from modelyard.config import Model
from modelyard.engine.settings import published_sampling
from modelyard.formats.gguf.header import GgufHeader
from modelyard.formats.gguf.values import Value
from modelyard.hub import POOLED_KINDS, ModelFiles
from modelyard.protocol.prompts import Sampling
from modelyard.yard.memory.cache_bytes import context_cells
from modelyard.yard.memory.layer_shapes import layer_count


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """Properties of a model, as its header has them.

    Attributes:
        architecture: as in the header, such as "llama".
        context_length: tokens of the context that an engine of it is given.
        quantization: type of its weights.
        size_bytes: size of its files, without a projector.
        can_chat: whether it has a chat template.
        chat_template: the template in the header; "" for a model without one, or with a configured one.
        parameter_count: number of its weights; None where not all headers were read.
        sampling: defaults of its configuration, else those that the header recommends; None where neither has one.
        license: name of its license; "" where the header has none.
        layer_count: layers that can be put on devices: those that are computed, and the output, which counts as one.
    """

    architecture: str
    context_length: int
    quantization: str
    size_bytes: int
    can_chat: bool
    chat_template: str = field(default="", repr=False)
    parameter_count: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    license: str = ""
    layer_count: int | None = None


def header_facts(files: ModelFiles, model: Model) -> HeaderFacts:
    """Return what is known of ``model`` from its ``files``."""
    header = files.header
    template = _text(header, "tokenizer.chat_template")
    has_template = model.chat_template is not None or bool(template)
    return HeaderFacts(
        architecture=header.architecture,
        context_length=context_cells(header, model.device.fixed_seq_len),
        quantization=files.quantization,
        size_bytes=files.size_bytes,
        can_chat=files.kind not in POOLED_KINDS and has_template,
        chat_template=template if model.chat_template is None else "",
        parameter_count=files.parameter_count,
        sampling=Sampling(**model.sampling.model_dump()).over(published_sampling(partial(_number, header))),
        license=_text(header, "general.license"),
        layer_count=layer_count(header) + 1 if header.block_count else None,
    )


def _text(header: GgufHeader, key: str) -> str:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else ""


def _number(header: GgufHeader, key: str) -> Value | None:
    value = header.metadata.get(key)
    return None if isinstance(value, str) else value
