"""The header of a GGUF file, which describes a model before its weights are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final, TypeAlias

from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.values import GgufArray, GgufTensor, Value

__all__ = ["GgufArray", "GgufHeader", "GgufTensor"]

# Architectures that encode only. Source: llama.cpp, src/llama-arch.cpp.
ENCODER_ARCHITECTURES: Final = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "t5encoder", "gemma-embedding", "llama-embed",
})  # fmt: skip

# The tensor of every architecture that turns a vector into scores. Source: llama.cpp, src/llama-arch.cpp.
RANKING_HEAD: Final = "cls.output.weight"

# Source: llama.cpp, include/llama.h, enum llama_pooling_type.
_POOLING_RANK: Final = 4

CONTROL_VECTOR: Final = "controlvector"
"""Architecture of the files of control vectors. Source: llama.cpp, tools/cvector-generator/cvector-generator.cpp."""

Metadata: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The checked header of one GGUF file. Its keys are documented in ggml/docs/gguf.md.

    Attributes:
        version: version of the format, 2 or 3.
        metadata: key -> scalar, string, or the element type and length of an array.
        tensors: in the order of the file.
        file_size: size of the whole file in bytes.
        data_start: where the contents of the tensors begin in the file, which their offsets count from.
    """

    version: int
    metadata: Metadata
    tensors: tuple[GgufTensor, ...]
    file_size: int
    data_start: int = 0

    @property
    def role(self) -> str:
        """The purpose of the file: "model", "mmproj" (a projector), "adapter", "controlvector", "imatrix" or "vocab".

        It is ``general.type``; older projectors have only their architecture, "clip", and so have control vectors.
        """
        if self.architecture == "clip":
            return "mmproj"
        if self.architecture == CONTROL_VECTOR:
            return CONTROL_VECTOR
        return self._text("general.type") or "model"

    @property
    def architecture(self) -> str:
        """``general.architecture``, such as "llama"; "" in every shard but the first."""
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        """``general.name``; "" if there is none."""
        return self._text("general.name")

    @property
    def context_length(self) -> int:
        """Context length of the training in tokens; 0 except in the first file of a model."""
        return self._count("context_length")

    @property
    def block_count(self) -> int:
        """Number of layers; 0 except in the first file of a model."""
        return self._count("block_count")

    @property
    def quantization(self) -> str:
        """The type of the weights, such as "Q4_1", "Q4_K_M", "F16".

        It is ``general.file_type`` (enum llama_ftype of llama.cpp's include/llama.h) if that is known, else the most
        common type of tensors with two dimensions or more; "" if there are none.
        """
        file_type = self.metadata.get("general.file_type")
        if isinstance(file_type, int) and (label := gguf.FILE_TYPES.get(file_type & ~gguf.FILE_TYPE_GUESSED)):
            return label
        types = Counter(tensor.type for tensor in self.tensors if len(tensor.shape) > 1)
        return types.most_common(1)[0][0] if types else ""

    @property
    def size_bytes(self) -> int:
        """Size of all tensors in this file, without padding."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def parameter_count(self) -> int:
        """Number of weights in this file."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def is_projector(self) -> bool:
        """Whether the file is a projector, which turns images or sound into embeddings for a model."""
        return self.role == "mmproj"

    @property
    def is_encoder(self) -> bool:
        """Whether the architecture only encodes, without a KV cache, and cannot generate."""
        return self.architecture in ENCODER_ARCHITECTURES

    @property
    def pooling(self) -> int:
        """How token vectors are pooled to one vector: enum llama_pooling_type of include/llama.h; 0 for none."""
        return self._count("pooling_type")

    @property
    def is_ranker(self) -> bool:
        """Whether the model scores documents against a query. Most such files have a ranking head, and no pooling."""
        return self.pooling == _POOLING_RANK or self.scores > 0

    @property
    def scores(self) -> int:
        """Number of outputs of the ranking head; 0 if there is none."""
        head = next((tensor for tensor in self.tensors if tensor.name == RANKING_HEAD), None)
        return 0 if head is None else head.shape[1] if len(head.shape) > 1 else 1

    @property
    def is_embedding_model(self) -> bool:
        """Whether the model yields a vector for each text: an encoder, or a decoder with pooling."""
        return (self.is_encoder or self.pooling > 0) and not self.is_ranker

    @property
    def split(self) -> tuple[int, int]:
        """(index from 0, count) of this file among the shards of its model; (0, 1) for a single file."""
        number, count = self.metadata.get("split.no", 0), self.metadata.get("split.count", 1)
        assert isinstance(number, int)
        assert isinstance(count, int)
        return number, max(count, 1)

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def _count(self, suffix: str) -> int:
        value = self.metadata.get(f"{self.architecture}.{suffix}")
        return value if isinstance(value, int) else 0
