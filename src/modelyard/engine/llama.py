"""The only module that imports llama_cpp: weights, context, batch, sampler.

Every object here belongs to the thread that made it. llama.cpp ends the process on some inputs (a batch larger than
n_batch, a sequence number out of range), so callers check before they call; where the check is cheap it is here.

Hot path: ``Batch.fill``, ``Context.decode``, ``Context.sample`` and ``Model.piece`` run once a step or once a token.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from modelyard.engine.messages import Sampling
from modelyard.errors import UnusableModel

# llama.cpp's threads meet at a barrier several hundred times a token, and GNU OpenMP spins there for milliseconds: as
# soon as another process or engine takes one of the cores, a token takes seconds. With a short spin they sleep
# instead, and the core is free. Read once by libgomp when it is loaded, so it has to be set here.
# Measured in docs/performance.md.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp.llama_cpp as lib

# Source: ggml.h, enum ggml_log_level.
_LOG_ERROR = 4
_LOG_LINES_KEPT = 20

# llama.cpp draws a seed of its own for this one. Source: llama.h, LLAMA_DEFAULT_SEED.
_RANDOM_SEED = 0xFFFFFFFF

# Below it logits divided by the temperature leave the range of 32-bit floats; the draw has long been certain.
_GREEDY_BELOW = 1e-5


_KV_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}
_FLASH_ATTENTION = {
    None: lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    False: lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    True: lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
}


class _Log(threading.local):
    """What llama.cpp logged on this thread that it tells in no other way: errors, and the sizes of its buffers."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.errors: list[str] = []
        self.buffers: list[str] = []


_log = _Log()


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, _user_data: object) -> None:
    if level == _LOG_ERROR and len(_log.errors) < _LOG_LINES_KEPT:
        _log.errors.append(text.decode("utf-8", "replace").strip())
    elif b" buffer size =" in text:
        _log.buffers.append(text.decode("utf-8", "replace"))


# llama.cpp has one log per process; it would otherwise write every line to stderr.
lib.llama_log_set(_listen, ctypes.c_void_p(0))
lib.llama_backend_init()


def _reason() -> str:
    """What llama.cpp said went wrong, and forget it."""
    lines = _log.errors
    _log.clear()
    return "; ".join(lines) or "llama.cpp gave no reason"


_BUFFER = re.compile(r"(\w+) buffer size = *([\d.]+) MiB")


def buffer_bytes(lines: Iterable[str], *kinds: str) -> int:
    """Bytes of the buffers of ``kinds`` that lines of llama.cpp's log speak of, in sum.

    Kinds are "model", "KV" (and "RS" and "state", what other models have in its place), "output" and "compute".
    Summaries that count the same bytes again have other words, and count nothing here.

    Source: llama.cpp, LLAMA_LOG_INFO in src/llama-model.cpp, llama-kv-cache.cpp, llama-memory-recurrent.cpp,
    llama-kv-cache-dsv4.cpp, llama-context.cpp.
    """
    found = (match for line in lines if (match := _BUFFER.search(line)))
    return round(sum(float(match[2]) for match in found if match[1] in kinds) * 2**20)


def can_offload() -> bool:
    """Whether the installed llama.cpp was built for an accelerator. Untested: no such machine is at hand."""
    return bool(lib.llama_supports_gpu_offload())


def version() -> str:
    """Of the installed llama.cpp."""
    return str(lib.llama_version().decode())


class Weights:
    """The weights of one GGUF file, or of its shards in order. Read-only: engines on several threads may share them.

    Args:
        paths: the file, or all shards in order.
        gpu_layers: layers to put on an accelerator; 0 for none, -1 for all.
        on_progress: called with the part read, 0 to 1; returning False gives the load up.
        end_tokens: those of its tokens that end an answer, where they are known: to ask for each takes 0.5 us.

    Attributes:
        allocated_bytes: of memory, mapped files included, as llama.cpp reports it.

    Raises:
        UnusableModel: llama.cpp cannot load it; the message holds llama.cpp's reason.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        gpu_layers: int,
        on_progress: Callable[[float], bool],
        end_tokens: frozenset[int] | None = None,
    ) -> None:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        callback = lib.llama_progress_callback(lambda fraction, _: on_progress(fraction))
        params.progress_callback = callback
        _log.clear()
        if len(paths) == 1:
            self.pointer = lib.llama_model_load_from_file(bytes(paths[0]), params)
        else:
            names = (ctypes.c_char_p * len(paths))(*(bytes(path) for path in paths))
            self.pointer = lib.llama_model_load_from_splits(names, len(paths), params)
        if not self.pointer:
            raise UnusableModel(f"llama.cpp cannot load {paths[0].name}: {_reason()}")
        self.allocated_bytes = buffer_bytes(_log.buffers, "model")
        vocab = lib.llama_model_get_vocab(self.pointer)
        if end_tokens is None:
            tokens = range(int(lib.llama_vocab_n_tokens(vocab)))
            end_tokens = frozenset(token for token in tokens if lib.llama_vocab_is_eog(vocab, token))
        self.end_tokens = end_tokens

    def free(self) -> None:
        """Free the weights. All contexts on them must be freed before."""
        lib.llama_model_free(self.pointer)


class Model:
    """One engine's view of its weights and their vocabulary."""

    def __init__(self, weights: Weights) -> None:
        self._model = weights.pointer
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._pieces: dict[int, bytes] = {}
        self._piece_buffer = ctypes.create_string_buffer(512)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self._vocab))
        self.trained_context = int(lib.llama_model_n_ctx_train(self._model))
        self.size_bytes = int(lib.llama_model_size(self._model))
        self.allocated_bytes = weights.allocated_bytes
        # Tokens that layers with a sliding window look back; 0 where all layers see everything.
        self.window = int(lib.llama_model_n_swa(self._model))
        # A recurrent state holds the whole past in one place: it cannot be cut back to an earlier token.
        self.can_trim = not (lib.llama_model_is_recurrent(self._model) or lib.llama_model_is_hybrid(self._model))
        self.end_tokens = weights.end_tokens

    def metadata(self, key: str) -> str | None:
        """A scalar of the GGUF header, as llama.cpp prints it; None where it is not there."""
        buffer = ctypes.create_string_buffer(256)
        length = lib.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def chat_template(self) -> str | None:
        """The Jinja source in the file."""
        source = lib.llama_model_chat_template(self._model, None)
        return source.decode("utf-8", "replace") if source else None

    def begin_token(self) -> str:
        """Text of the token that begins a sequence, "" where the vocabulary has none."""
        return self._special(lib.llama_vocab_bos(self._vocab))

    def end_token(self) -> str:
        """Text of the token that ends a sequence, "" where the vocabulary has none."""
        return self._special(lib.llama_vocab_eos(self._vocab))

    def _special(self, token: int) -> str:
        return lib.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    def vocabulary_digest(self) -> str:
        """Equal for models whose tokens are the same, text by text."""
        digest = hashlib.blake2b(digest_size=16)
        for token in range(self.vocab_size):
            digest.update(lib.llama_vocab_get_text(self._vocab, token) + b"\0")
        return digest.hexdigest()

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids of ``text``, in which the spelt-out special tokens count as such.

        add_special puts the begin token (and what else the model wants) around it.
        """
        raw = text.encode("utf-8", "replace")
        capacity = len(raw) + 8
        tokens = (lib.llama_token * capacity)()
        count = lib.llama_tokenize(self._vocab, raw, len(raw), tokens, capacity, add_special, True)
        if count < 0:
            tokens = (lib.llama_token * -count)()
            count = lib.llama_tokenize(self._vocab, raw, len(raw), tokens, -count, add_special, True)
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; b"" for special tokens, which are not text."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        buffer = self._piece_buffer
        length = lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]


class Batch:
    """The tokens of one step, in memory that llama.cpp reads in place.

    capacity is in tokens. Every token belongs to one sequence.
    """

    __slots__ = ("_n_seq_id", "_seq_ids", "_struct", "logits", "positions", "slots", "tokens")

    def __init__(self, capacity: int) -> None:
        self.tokens: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.positions: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.slots: npt.NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.logits: npt.NDArray[np.int8] = np.zeros(capacity, np.int8)
        self._n_seq_id: npt.NDArray[np.int32] = np.ones(capacity, np.int32)
        # seq_id is an array of pointers, one a token: each points at that token's entry of ``slots``, for good.
        self._seq_ids = self.slots.ctypes.data + np.arange(capacity, dtype=np.uintp) * self.slots.itemsize
        fields: dict[str, Any] = {
            "token": self.tokens,
            "pos": self.positions,
            "n_seq_id": self._n_seq_id,
            "seq_id": self._seq_ids,
            "logits": self.logits,
        }
        self._struct = lib.llama_batch()
        for name, ctype in lib.llama_batch._fields_:
            if name in fields:
                setattr(self._struct, name, ctypes.cast(fields[name].ctypes.data, ctype))

    def fill(self, at: int, tokens: Sequence[int], position: int, slot: int, *, outputs: int) -> int:
        """Put ``tokens`` of one sequence at index ``at``, the first at ``position``; the index behind them.

        outputs: of the last so many of them the logits are wanted.
        """
        end = at + len(tokens)
        if end == at + 1:
            self.tokens[at] = tokens[0]
            self.positions[at] = position
        else:
            self.tokens[at:end] = tokens
            self.positions[at:end] = np.arange(position, position + len(tokens), dtype=np.int32)
        self.slots[at:end] = slot
        self.logits[at:end] = 0
        self.logits[end - outputs : end] = 1
        return end

    def of_length(self, length: int) -> Any:
        """The structure for ``llama_decode``, holding the first ``length`` tokens."""
        self._struct.n_tokens = length
        return self._struct


def is_greedy(sampling: Sampling) -> bool:
    """Whether the likeliest token is taken, without a draw."""
    return (sampling.temperature or 0.0) < _GREEDY_BELOW


class SamplerChain:
    """A sampler chain in C, with the state of one sequence: penalties count its tokens, the seed's draws go on.

    Order: bias, penalties, then top-k, top-p, min-p, temperature and the draw, as llama.cpp orders them. Repetition
    counts the prompt and the answer, presence and frequency count the answer, as OpenAI defines them.

    It holds nothing of weights or context: it may leave its engine with a suspended sequence, and is freed with its
    last reference.
    """

    __slots__ = ("__weakref__", "_chain", "_free", "can_verify")

    def __init__(
        self, sampling: Sampling, bias: Mapping[int, float], model: Model, context: int, prompt: Iterable[int]
    ) -> None:
        self.can_verify = sampling.seed is None and not is_greedy(sampling)
        params = lib.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain = lib.llama_sampler_chain_init(params)
        self._free = weakref.finalize(self, lib.llama_sampler_free, self._chain)
        self._free.atexit = False
        if bias:
            entries = (lib.llama_logit_bias * len(bias))(*(lib.llama_logit_bias(t, b) for t, b in bias.items()))
            self._add(lib.llama_sampler_init_logit_bias(model.vocab_size, len(bias), entries))
        if sampling.repetition_penalty not in (None, 1.0):
            penalty = lib.llama_sampler_init_penalties(model.vocab_size, context, sampling.repetition_penalty, 0.0, 0.0)
            for token in prompt:
                lib.llama_sampler_accept(penalty, token)
            self._add(penalty)
        if sampling.frequency_penalty or sampling.presence_penalty:
            frequency, presence = sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0
            self._add(lib.llama_sampler_init_penalties(model.vocab_size, context, 1.0, frequency, presence))
        if is_greedy(sampling):
            self._add(lib.llama_sampler_init_greedy())
            return
        if sampling.top_k:
            self._add(lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p is not None and sampling.top_p < 1:
            self._add(lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p:
            self._add(lib.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(lib.llama_sampler_init_temp(sampling.temperature))
        seed = _RANDOM_SEED if sampling.seed is None else sampling.seed % _RANDOM_SEED
        self._add(lib.llama_sampler_init_dist(seed))

    def _add(self, sampler: Any) -> None:
        lib.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: Context, index: int, _logits: npt.NDArray[np.float32]) -> int:
        """Draw from the logits behind the batch's token at ``index``, and count the token drawn."""
        return int(lib.llama_sampler_sample(self._chain, context.pointer, index))

    def is_certain(self, _logits: npt.NDArray[np.float32], _token: int) -> bool:
        """A draw from slightly other logits is as good."""
        return True

    def free(self) -> None:
        """Free the chain now."""
        self._free()


class Context:
    """The KV cache and the compute buffers of one engine, on the weights of ``model``.

    Args:
        model: its weights.
        length: KV cells, in tokens, shared by all sequences; rounded up as llama.cpp wants it.
        slots: sequences that can be told apart in the cache.
        batch_tokens: most tokens in one step.
        threads: for decode and for prefill.
        kv_type: of the numbers in the cache.
        flash_attn: None: where the device has it.

    Attributes:
        allocated_bytes: of memory for the cache and the outputs, as llama.cpp reports it.
        kv_format: how a saved state is laid out.

    Raises:
        UnusableModel: llama.cpp cannot make it, most often for lack of memory.
    """

    DECODED: ClassVar[int] = 0
    CACHE_FULL: ClassVar[int] = 1

    def __init__(
        self,
        model: Model,
        *,
        length: int,
        slots: int,
        batch_tokens: int,
        threads: int,
        kv_type: Literal["f16", "q8_0"] = "f16",
        flash_attn: bool | None = None,
    ) -> None:
        params = lib.llama_context_default_params()
        params.type_k = params.type_v = _KV_TYPES[kv_type]
        params.flash_attn_type = _FLASH_ATTENTION[flash_attn]
        params.n_ctx = length
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_seq_max = slots
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        # A full-size cache for sliding-window layers costs memory, and lets a prefix be cut at any token.
        params.swa_full = True
        params.no_perf = True
        _log.clear()
        self.pointer = lib.llama_init_from_model(model._model, params)
        if not self.pointer:
            raise UnusableModel(f"llama.cpp cannot make a context of {length} tokens: {_reason()}")
        # Not "compute": it is reserved for the logits of every token of a step, and mostly never touched.
        self.allocated_bytes = buffer_bytes(_log.buffers, "KV", "RS", "state", "output")
        self._slots = slots
        self.kv_format = (
            f"K {params.type_k}, V {params.type_v}, unified {params.kv_unified}, windows full {params.swa_full}"
        )
        self._memory = lib.llama_get_memory(self.pointer)
        self._vocab_size = model.vocab_size
        self._logits: npt.NDArray[np.float32] = np.empty((0, self._vocab_size), np.float32)
        self._logits_address = 0
        self.length = int(lib.llama_n_ctx(self.pointer))

    @property
    def has_memory(self) -> bool:
        """Whether the model keeps a KV cache or a state: without one it cannot generate."""
        return bool(self._memory)

    def decode(self, batch: Batch, length: int) -> int:
        """Run the model over the first ``length`` tokens of ``batch``; DECODED, CACHE_FULL or an error below 0.

        Returns when the device has done it.
        """
        outcome = int(lib.llama_decode(self.pointer, batch.of_length(length)))
        lib.llama_synchronize(self.pointer)
        return outcome

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        """Logits behind those of the batch's tokens that asked for them, in order: a view of [rows, vocab_size], valid
        until the next decode. ``rows`` is how many asked."""
        values = lib.llama_get_logits(self.pointer)
        address = ctypes.addressof(values.contents)
        # A view costs more than a look at the largest of its rows.
        if address != self._logits_address or rows > len(self._logits):
            self._logits = np.ctypeslib.as_array(values, shape=(rows, self._vocab_size))
            self._logits_address = address
        return self._logits[:rows]

    def failure(self) -> str:
        """What llama.cpp logged for the last call that failed."""
        return _reason()

    def trim(self, slot: int, length: int) -> None:
        """Forget all tokens of ``slot`` from position ``length`` on."""
        lib.llama_memory_seq_rm(self._memory, slot, length if length else -1, -1)

    def share(self, source: int, target: int, length: int) -> None:
        """Let ``target``, which is empty, hold the first ``length`` tokens of ``source``; no data is copied."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def state_bytes(self, slot: int) -> int:
        """Bytes that ``save`` gives for ``slot``."""
        self._check(slot)
        return int(lib.llama_state_seq_get_size(self.pointer, slot))

    def save(self, slot: int) -> npt.NDArray[np.uint8]:
        """The KV state of ``slot``, to be restored in any context of the same weights and ``kv_format``.

        Raises:
            RuntimeError: llama.cpp cannot read it.
        """
        state = np.empty(self.state_bytes(slot), dtype=np.uint8)
        written = int(lib.llama_state_seq_get_data(self.pointer, _bytes_of(state), state.size, slot))
        if not written or written != state.size:
            raise RuntimeError(f"llama.cpp cannot save the state of a sequence: {_reason()}")
        return state

    def restore(self, slot: int, state: npt.NDArray[np.uint8]) -> bool:
        """Put a saved state into ``slot``, which must be empty; whether llama.cpp took it. If not, it stays empty."""
        self._check(slot)
        read = int(lib.llama_state_seq_set_data(self.pointer, _bytes_of(state), state.size, slot))
        if read and read == state.size:
            return True
        # A state that fails half-way leaves cells without content.
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return False

    def _check(self, slot: int) -> None:
        # llama.cpp ends the process.
        if not 0 <= slot < self._slots:
            raise ValueError(f"There is no slot {slot}: there are {self._slots}")

    def free(self) -> None:
        """Free the cache and the buffers."""
        lib.llama_free(self.pointer)


def _bytes_of(state: npt.NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
