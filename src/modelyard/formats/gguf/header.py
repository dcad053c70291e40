"""Everything that is known of a model before its weights are loaded: the header of its GGUF file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.values import GgufArray, GgufTensor, Value

__all__ = ["GgufArray", "GgufHeader", "GgufTensor"]

# Architectures that encode only. Source: llama.cpp, src/llama-arch.cpp.
ENCODER_ARCHITECTURES: Final = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "t5encoder", "gemma-embedding", "llama-embed",
})  # fmt: skip

# The tensor that turns a vector into scores, in every architecture. Source: llama.cpp, src/llama-arch.cpp.
RANKING_HEAD: Final = "cls.output.weight"

# Source: llama.cpp, include/llama.h, enum llama_pooling_type.
_POOLING_RANK: Final = 4

Metadata: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The header of one GGUF file, checked.

    Attributes:
        version: of the format, 2 or 3.
        metadata: key -> scalar or string; of an array only its element type and length.
        tensors: in the order of the file.
        file_size: bytes of the whole file.

    The keys are those of ggml/docs/gguf.md.
    """

    version: int
    metadata: Metadata
    tensors: tuple[GgufTensor, ...]
    file_size: int

    @property
    def role(self) -> str:
        """What the file is for: "model", or "mmproj" (a projector), "adapter", "imatrix", "vocab".

        From ``general.type``; older projectors have only their architecture, "clip".
        """
        if self.architecture == "clip":
            return "mmproj"
        return self._text("general.type") or "model"

    @property
    def architecture(self) -> str:
        """``general.architecture``, such as "llama"; "" in every shard but the first."""
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        """``general.name``, as its author wrote it; "" where it has none."""
        return self._text("general.name")

    @property
    def context_length(self) -> int:
        """Tokens of context that the model was trained with; 0 in what is not a model's first file."""
        return self._count("context_length")

    @property
    def block_count(self) -> int:
        """Layers; 0 in what is not a model's first file."""
        return self._count("block_count")

    @property
    def quantization(self) -> str:
        """The type of its weights, such as "Q4_1", "Q4_K_M", "F16".

        ``general.file_type`` (enum llama_ftype of llama.cpp's include/llama.h) where it says one; else the commonest
        type among the tensors with two dimensions or more; "" where there are none.
        """
        file_type = self.metadata.get("general.file_type")
        if isinstance(file_type, int) and (label := gguf.FILE_TYPES.get(file_type & ~gguf.FILE_TYPE_GUESSED)):
            return label
        types = Counter(tensor.type for tensor in self.tensors if len(tensor.shape) > 1)
        return types.most_common(1)[0][0] if types else ""

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors of this file, without padding."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def has_chat_template(self) -> bool:
        """Whether the file says how a conversation becomes a prompt."""
        return bool(self._text("tokenizer.chat_template"))

    @property
    def is_projector(self) -> bool:
        """Whether it turns pictures or sound into embeddings for another model, and is none itself."""
        return self.role == "mmproj"

    @property
    def is_encoder(self) -> bool:
        """Whether its architecture only encodes: it has no KV cache and cannot generate."""
        return self.architecture in ENCODER_ARCHITECTURES

    @property
    def pooling(self) -> int:
        """How the vectors of tokens become one of the text: enum llama_pooling_type of include/llama.h; 0 for none."""
        return self._count("pooling_type")

    @property
    def is_ranker(self) -> bool:
        """Whether it says how well a document answers a query. Most such files have the head for it and no pooling."""
        return self.pooling == _POOLING_RANK or self.scores > 0

    @property
    def scores(self) -> int:
        """How many numbers its ranking head yields; 0 where it has none."""
        head = next((tensor for tensor in self.tensors if tensor.name == RANKING_HEAD), None)
        return 0 if head is None else head.shape[1] if len(head.shape) > 1 else 1

    @property
    def is_embedding_model(self) -> bool:
        """Whether it yields one vector a text instead of more text: an encoder, or a decoder with a pooling."""
        return (self.is_encoder or self.pooling > 0) and not self.is_ranker

    @property
    def split(self) -> tuple[int, int]:
        """(index from 0, count) of this file among the shards of its model; (0, 1) where it is whole."""
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
