"""The projector of a model, which turns images and sound into embeddings, through llama.cpp's mtmd.

Source: tools/mtmd/mtmd.h and mtmd-helper.cpp of llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama.context_params import FLASH_ATTENTION
from modelyard.engine.llama.devices import device_pointer
from modelyard.engine.llama.library import lib, log, mtmd, reason
from modelyard.engine.llama.log_lines import buffer_bytes
from modelyard.engine.llama.model import Model
from modelyard.engine.llama.placing import load_failure
from modelyard.errors import InvalidRequest, UnusableModel
from modelyard.protocol.prompts import Audio, Media


@dataclass(frozen=True, slots=True)
class SpanEmbeddings:
    """Embeddings of an image span, in the place of tokens.

    Attributes:
        values: [tokens, width of the model's input].
        is_causal: whether each token sees only those before it; otherwise all of them see each other.
        places: [4, tokens]: place of each token in the span, in the order of llama.cpp's batches: time, row, column,
            and one more; None where positions count tokens.
        moves: [4, tokens]: by how much each place increases with the position of the span.
    """

    values: npt.NDArray[np.float32]
    is_causal: bool
    places: npt.NDArray[np.int32] | None = None
    moves: npt.NDArray[np.int32] | None = None

    def positions_from(self, position: int) -> npt.NDArray[np.int32]:
        """Return the positions of the tokens of a span that begins at ``position``, [1 or 4, tokens]."""
        if self.places is None or self.moves is None:
            return np.arange(position, position + len(self.values), dtype=np.int32)[None]
        return self.places + position * self.moves


class SpanSize(NamedTuple):
    """Size of an image span: its tokens, and the positions that it takes in a sequence."""

    length: int
    positions: int


class PreparedImage:
    """An image or a clip of sound, scaled or as a spectrum, in the parts that its projector makes of it.

    Attributes:
        parts: in their order: the ids of text that the model expects around image spans, or the size of a span.
    """

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks
        self.parts = [self._read(self.chunk(index)) for index in range(int(mtmd.mtmd_input_chunks_size(chunks)))]

    @staticmethod
    def _read(chunk: Any) -> list[int] | SpanSize:
        if mtmd.mtmd_input_chunk_get_type(chunk) != mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            length = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
            return SpanSize(length, int(mtmd.mtmd_input_chunk_get_n_pos(chunk)))
        count = ctypes.c_size_t()
        tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        return list(tokens[: count.value])

    def chunk(self, index: int) -> Any:
        """Return the part at ``index``, as mtmd's chunk."""
        return mtmd.mtmd_input_chunks_get(self._chunks, index)

    def free(self) -> None:
        """Free the prepared parts."""
        mtmd.mtmd_input_chunks_free(self._chunks)


class Projector:
    """The projector of one engine, on the weights of ``model``. It belongs to the engine's thread.

    Args:
        path: its GGUF file.
        model: the model that takes the embeddings.
        device: name of the device that it is on; None for the host.
        threads: number of threads.
        flash_attn: None: where the device has it.
        on_progress: called with the part read, 0 to 1; returning False cancels the load.

    Attributes:
        compute_bytes: working memory.
        can_see, can_hear: whether it takes images, and sound.
        sample_rate: samples of sound per second that it takes; 0 where it takes none.

    Raises:
        UnusableModel: mtmd cannot load it, it does not fit the model, or it takes neither images nor sound.
    """

    def __init__(
        self,
        path: Path,
        model: Model,
        *,
        device: str | None,
        threads: int,
        flash_attn: bool | None,
        on_progress: Callable[[float], bool],
    ) -> None:
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = device is not None
        if device is not None:
            params.device = device_pointer(device)
        params.n_threads = threads
        params.flash_attn_type = FLASH_ATTENTION[flash_attn]
        params.print_timings = False
        # Plans the computation of an image and allocates the memory for it, without computing anything.
        params.warmup = True
        callback = mtmd.mtmd_progress_callback(lambda fraction, _: on_progress(fraction))
        params.progress_callback = callback
        log.clear()
        self._pointer = mtmd.mtmd_init_from_file(bytes(path), model.pointer, params)
        if not self._pointer:
            raise load_failure(f"llama.cpp cannot load the projector {path.name}", model.placement)
        self.compute_bytes = buffer_bytes(log.buffers, "compute")
        self._width = int(lib.llama_model_n_embd_inp(model.pointer))
        self._vocab_size = model.vocab_size
        self.can_see = bool(mtmd.mtmd_support_vision(self._pointer))
        self.can_hear = bool(mtmd.mtmd_support_audio(self._pointer))
        self.sample_rate = max(0, int(mtmd.mtmd_get_audio_sample_rate(self._pointer)))
        if not (self.can_see or self.can_hear):
            self.free()
            raise UnusableModel(
                f"The projector {path.name} takes neither images nor sound. Remove it, or set kind = 'text'."
            )
        self._has_places = bool(mtmd.mtmd_decode_use_mrope(self._pointer))

    def prepare(self, source: Media) -> PreparedImage:
        """Scale an image, or compute the spectrum of a clip, and cut it where the projector needs that.

        Takes time in proportion to its pixels or samples. The projector must take this kind of source, and a clip must
        have its sample rate.

        Raises:
            InvalidRequest: the projector cannot take it.
        """
        part = mtmd.mtmd_input_part()
        part.bitmap = _bitmap(source)
        parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
        chunks = mtmd.mtmd_input_chunks_init()
        log.clear()
        try:
            outcome = mtmd.mtmd_tokenize_from_parts(self._pointer, chunks, parts, 1, False)
        finally:
            mtmd.mtmd_bitmap_free(part.bitmap)
        prepared = PreparedImage(chunks)
        problem = ""
        if outcome:
            problem = (
                f"of this length ({source.duration_s:.2f} s). Send a longer one"
                if isinstance(source, Audio)
                else f"in this size ({source.width} x {source.height} pixels). Send it in another one"
            )
        elif not all(
            0 <= token < self._vocab_size for part in prepared.parts if isinstance(part, list) for token in part
        ):
            problem = (
                "at all: its projector needs special tokens that its vocabulary lacks. Use the model's own projector"
            )
        if problem:
            prepared.free()
            what = "sound" if isinstance(source, Audio) else "image"
            raise InvalidRequest(f"The model cannot take this {what} {problem}.", source.param)
        return prepared

    def encode(self, prepared: PreparedImage, index: int) -> SpanEmbeddings:
        """Return the embeddings of an image span, the part at ``index``. Takes as long as a long prompt.

        Raises:
            RuntimeError: mtmd cannot compute it.
        """
        chunk = prepared.chunk(index)
        log.clear()
        if mtmd.mtmd_encode_chunk(self._pointer, chunk):
            raise RuntimeError(f"an image or a clip of sound cannot be encoded: {reason()}")
        size = prepared.parts[index]
        assert isinstance(size, SpanSize)
        length = size.length
        found = mtmd.mtmd_get_output_embd(self._pointer)
        values = np.ctypeslib.as_array(found, shape=(length, self._width)).copy()
        is_causal = not mtmd.mtmd_decode_use_non_causal(self._pointer, chunk)
        if not self._has_places:
            return SpanEmbeddings(values, is_causal)
        places = _places(chunk, length, 0)
        return SpanEmbeddings(values, is_causal, places, _places(chunk, length, 1) - places)

    @property
    def is_causal(self) -> bool:
        """Whether the tokens of image spans see only those before them."""
        return not mtmd.mtmd_decode_use_non_causal(self._pointer, None)

    def free(self) -> None:
        """Free the projector. The model's weights must still be there."""
        mtmd.mtmd_free(self._pointer)


def _bitmap(source: Media) -> Any:
    """Return what mtmd calls a bitmap: a copy of the pixels or samples, which the caller frees."""
    if isinstance(source, Audio):
        samples = np.frombuffer(source.samples, np.float32).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return mtmd.mtmd_bitmap_init_from_audio(source.length, samples)
    pixels = np.frombuffer(source.pixels, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    return mtmd.mtmd_bitmap_init(source.width, source.height, pixels)


def _places(chunk: Any, length: int, position: int) -> npt.NDArray[np.int32]:
    """Return the positions, [4, length], of the tokens of a span that begins at ``position``."""
    if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_AUDIO:
        # Sound has positions in time alone, as text has: the same number in every dimension.
        # Source: mtmd_helper_embd_batch, set_position_mrope_1d.
        return np.tile(np.arange(position, position + length, dtype=np.int32), (4, 1))
    found = (mtmd.mtmd_decoder_pos * length)()
    mtmd.mtmd_helper_image_get_decoder_pos(mtmd.mtmd_input_chunk_get_tokens_image(chunk), position, found)
    numbers = np.frombuffer(found, np.uint32).reshape(length, 4).astype(np.int32)
    # mtmd's order is time, column, row; llama.cpp's batches expect rows before columns.
    return np.ascontiguousarray(numbers[:, [0, 2, 1, 3]].T)
