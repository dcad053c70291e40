"""What the weights and the vocabulary of a model take of the machine's memory. Pure; see ``footprint``."""

from __future__ import annotations

from typing import Final

from modelyard.formats.gguf.header import GgufHeader, GgufTensor
from modelyard.hub import ModelFiles
from modelyard.yard.memory.layer_shapes import array_length, is_computed, vocabulary_size

# Heap for one token of the vocabulary, and for one merge: text, maps from text to id.
TOKEN_BYTES: Final = 165
MERGE_BYTES: Final = 175

# Types that llama.cpp keeps a second, interleaved copy of, where the rows are a multiple of 8: on x86-64 with AVX2, and
# on ARM (untested). Source: ggml/src/ggml-cpu/repack.cpp, ggml_repack_get_optimal_repack_type.
REPACKED: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
REPACKED_ON_ARM: Final = REPACKED | {"Q5_K", "Q6_K", "Q8_0"}


def tensor_bytes(files: ModelFiles) -> int:
    """Return the bytes of the part of the files that stays mapped: from the first to the last tensor that is loaded.

    Source: llama.cpp, src/llama-model-loader.cpp, get_mapping_range, and load_all_data, which unmaps the rest.
    """
    header = files.header
    whole = max(0, files.size_bytes - (header.file_size - header.size_bytes))
    loaded = [tensor for tensor in header.tensors if is_computed(header, tensor.name)]
    if header.split[1] > 1 or len(loaded) == len(header.tensors):
        return whole
    first = min((tensor.offset for tensor in loaded), default=0)
    return min(whole, max((tensor.offset + tensor.size_bytes for tensor in loaded), default=0) - first)


def repacked_bytes(header: GgufHeader, tensors_bytes: int, processor: str) -> int:
    """Return the bytes of the copies that llama.cpp makes of weights, in an order that is faster for its kernels.

    The originals stay mapped. Of a split file only the first shard is known; the others are assumed to be alike.

    Args:
        header: of the first file.
        tensors_bytes: size of the tensors of all files.
        processor: as ``platform.machine`` calls it.
    """
    types = _repacked_types(processor)
    if header.split[1] > 1 and not header.size_bytes:
        return tensors_bytes if header.quantization.startswith(tuple(types)) else 0
    names = {tensor.name for tensor in header.tensors}
    is_tied = header.split[1] == 1 and "output.weight" not in names
    repacked = sum(
        tensor.size_bytes
        for tensor in header.tensors
        if is_computed(header, tensor.name) and _is_repacked(tensor, types, is_tied=is_tied)
    )
    return repacked if header.split[1] == 1 else repacked * tensors_bytes // header.size_bytes


def _repacked_types(processor: str) -> frozenset[str]:
    return REPACKED_ON_ARM if processor.lower().startswith(("arm", "aarch")) else REPACKED


def is_repacked(tensor: GgufTensor, processor: str, *, is_tied: bool) -> bool:
    """Whether llama.cpp repacks a tensor on the host for a processor, as ``platform.machine`` calls it.

    Args:
        tensor: of the model's file.
        processor: its name.
        is_tied: whether the embeddings also serve as the output matrix.
    """
    return _is_repacked(tensor, _repacked_types(processor), is_tied=is_tied)


def _is_repacked(tensor: GgufTensor, types: frozenset[str], *, is_tied: bool) -> bool:
    if tensor.type not in types or len(tensor.shape) < 2 or tensor.shape[1] % 8:
        return False
    # Embeddings are looked up by row, without a copy. Those that also serve as the output matrix have one for that.
    return is_tied if tensor.name == "token_embd.weight" else not tensor.name.startswith("per_layer_token_embd")


def vocabulary_bytes(header: GgufHeader) -> int:
    """Return the bytes of heap for the vocabulary."""
    return vocabulary_size(header) * TOKEN_BYTES + array_length(header, "tokenizer.ggml.merges") * MERGE_BYTES
