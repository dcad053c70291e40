"""Everything that is known of a model before its weights are loaded: the header of its GGUF file."""

from __future__ import annotations

import os
import stat
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from modelyard.errors import UnusableModel
from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.checks import check_loadable
from modelyard.formats.gguf.parse import parse_pairs, parse_tensors
from modelyard.formats.gguf.reader import BoundedReader
from modelyard.formats.gguf.values import GgufArray, GgufTensor, Value
from modelyard.formats.unsupported import LOOK_AT_BYTES, describe_foreign

__all__ = ["GgufArray", "GgufHeader", "GgufTensor", "read_header"]

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

# Headers of files that are as they were, by path and what the file system says of the file: models come back.
_HEADERS_KEPT: Final = 64
_keeping = threading.Lock()
_read_before: dict[tuple[Path, int, int, int, int, int], GgufHeader] = {}


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


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file (version 2 or 3, little-endian).

    Takes 0.1 s for a vocabulary of 262,144 tokens, and nothing for a file that has not changed since; reads neither
    weights nor the contents of numeric arrays. What would make llama.cpp abort the process is refused here (see
    gguf_checks).

    Raises:
        UnusableModel: it cannot be read, is not GGUF, is damaged or cut off, or is not safe to load.

    Source: ggml/docs/gguf.md and ggml/src/gguf.cpp of llama.cpp, as of b11739.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a named pipe would wait for its writer, for ever.
            raise UnusableModel(f"{path}: This is not a file. Name a GGUF file.")
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            header = _read_before.get(key)
            if header is None:
                header = parse_header(BoundedReader(file, path, status.st_size))
                with _keeping:
                    if len(_read_before) >= _HEADERS_KEPT:
                        del _read_before[next(iter(_read_before))]
                    _read_before[key] = header
            return header
    except FileNotFoundError:
        raise UnusableModel(f"{path}: There is no such file. Check the path.") from None
    except PermissionError:
        raise UnusableModel(
            f"{path}: The file cannot be read: permission denied. Give the user that runs Modelyard the right to read."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UnusableModel(f"{path}: The file cannot be read: {error}. Check the path and the disk.") from error


def parse_header(reader: BoundedReader) -> GgufHeader:
    """The checked header of an open file, from its first byte.

    Raises:
        UnusableModel: as read_header, except for what concerns the path.
    """
    version = _read_version(reader)
    u64 = gguf.SCALARS[10]
    tensor_count = reader.integer(u64, "the number of tensors")
    pair_count = reader.integer(u64, "the number of metadata keys")
    pairs = parse_pairs(reader, pair_count)
    tensors = parse_tensors(reader, tensor_count, pairs.alignment)
    header = GgufHeader(version, pairs.values, tensors, reader.size)
    check_loadable(header, pairs, reader.fail)
    return header


def _read_version(reader: BoundedReader) -> int:
    """Check what the file starts with."""
    if reader.size == 0:
        reader.fail("The file is empty", "Download it again.")
    head = reader.take(min(reader.size, LOOK_AT_BYTES), "its first bytes")
    reader.rewind()
    magic = reader.take(min(reader.size, len(gguf.MAGIC)), "its first bytes")
    if magic != gguf.MAGIC:
        if gguf.MAGIC.startswith(magic):
            reader.cut_off(24, " at least, for the start of a GGUF file")
        reader.fail(*describe_foreign(head))
    version = reader.integer(gguf.SCALARS[gguf.UINT32], "the GGUF version")
    if version not in gguf.READABLE_VERSIONS:
        if version & 0xFFFF == 0:
            reader.fail("This GGUF file is big-endian", "Download the little-endian file of the model.")
        if version == 1:
            reader.fail("This is GGUF version 1, which is no longer supported", "Download a newer file of the model.")
        reader.fail(
            f"This is GGUF version {version}, but only versions 2 and 3 can be read",
            "Download another file of the model, or a newer Modelyard.",
        )
    return version
