"""What the weights and the vocabulary of a model take of the machine's memory. Pure; see ``footprint``."""

from __future__ import annotations

from typing import Final

from modelyard.formats.gguf.header import GgufHeader, GgufTensor
from modelyard.hub import ModelFiles
from modelyard.system.file_mappings import CAN_GIVE_BACK
from modelyard.yard.memory.layer_shapes import array_length, is_computed, number_of, vocabulary_size

# Heap for one token of the vocabulary, and for one merge: text, maps from text to id.
TOKEN_BYTES: Final = 165
MERGE_BYTES: Final = 175

# Types that llama.cpp copies into an interleaved order, where the rows are a multiple of 8: on x86-64 with AVX2, and
# on ARM (untested). Source: ggml/src/ggml-cpu/repack.cpp, ggml_repack_get_optimal_repack_type.
REPACKED: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
REPACKED_ON_ARM: Final = REPACKED | {"Q5_K", "Q6_K", "Q8_0"}
REPACKED_BITS: Final = 8.5
"""Bits of a weight of the largest of these types."""

EMBEDDINGS: Final = "token_embd.weight"


def tensor_bytes(files: ModelFiles) -> int:
    """Return the bytes of the part of the files that is loaded: from the first to the last tensor.

    Source: llama.cpp, src/llama-model-loader.cpp, get_mapping_range, and load_all_data, which unmaps the rest.
    """
    header = files.header
    whole = max(0, files.size_bytes - (header.file_size - header.size_bytes))
    loaded = [tensor for tensor in header.tensors if is_computed(header, tensor.name)]
    if header.split[1] > 1 or len(loaded) == len(header.tensors):
        return whole
    first = min((tensor.offset for tensor in loaded), default=0)
    return min(whole, max((tensor.offset + tensor.size_bytes for tensor in loaded), default=0) - first)


def twice_held_bytes(
    header: GgufHeader, tensors_bytes: int, processor: str, *, gives_back: bool = CAN_GIVE_BACK
) -> int:
    """Return the bytes of weights that the host holds twice: as the file has them, and repacked for the kernels.

    Of a split file only the first shard is known; the others are assumed to be alike.

    Args:
        header: of the first file.
        tensors_bytes: size of the tensors of all files.
        processor: as ``platform.machine`` calls it.
        gives_back: whether an engine gives back the pages of tensors that it reads in another place.
    """
    is_split = header.split[1] > 1
    is_known = bool(header.size_bytes) or not is_split
    if not is_known and not header.quantization.startswith(tuple(_repacked_types(processor))):
        return 0
    if not is_known:
        return _embeddings_bytes(header) if gives_back else tensors_bytes
    # The output may be in another shard. If it is, so much too much is predicted.
    is_tied = all(tensor.name != "output.weight" for tensor in header.tensors)
    twice = sum(
        tensor.size_bytes
        for tensor in header.tensors
        if is_computed(header, tensor.name)
        and is_held_twice(tensor, processor, is_tied=is_tied and (gives_back or not is_split), gives_back=gives_back)
    )
    return twice * tensors_bytes // header.size_bytes if is_split and not gives_back else twice


def is_held_twice(tensor: GgufTensor, processor: str, *, is_tied: bool, gives_back: bool = CAN_GIVE_BACK) -> bool:
    """Whether the host holds a tensor twice: as the file has it, and repacked for the kernels of a processor.

    Args:
        tensor: of the model's file.
        processor: as ``platform.machine`` calls it.
        is_tied: whether the embeddings also serve as the output matrix.
        gives_back: as for ``twice_held_bytes``.
    """
    if tensor.type not in _repacked_types(processor) or len(tensor.shape) < 2 or tensor.shape[1] % 8:
        return False
    # Embeddings are looked up by row as the file has them. The output matrix that they may also be is repacked.
    if tensor.name == EMBEDDINGS:
        return is_tied
    return not gives_back and not tensor.name.startswith("per_layer_token_embd")


def _repacked_types(processor: str) -> frozenset[str]:
    return REPACKED_ON_ARM if processor.lower().startswith(("arm", "aarch")) else REPACKED


def _embeddings_bytes(header: GgufHeader) -> int:
    return int(vocabulary_size(header) * number_of(header, "embedding_length") * REPACKED_BITS / 8)


def vocabulary_bytes(header: GgufHeader) -> int:
    """Return the bytes of heap for the vocabulary."""
    return vocabulary_size(header) * TOKEN_BYTES + array_length(header, "tokenizer.ggml.merges") * MERGE_BYTES
