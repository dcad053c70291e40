"""Random texts against every pre-tokenizer of llama.cpp, and every kind of tokenizer.

A text becomes tokens or is refused, in bounded processor time and within the stack that there is for it.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fuzz.case import Ending, Fault, Place
from fuzz.children import run_child
from fuzz.gguf_file import Array, GgufFile, Tensor, number, text, texts
from fuzz.nasty_texts import UNITS, nasty_text
from fuzz.pre_tokenizers import PRE_TOKENIZERS
from fuzz.serving import shown
from fuzz.tiny_models import cut_model, tiny_model, vocabulary_of
from modelyard.engine.input.tokenizer_process import TokenizerProcesses
from modelyard.engine.input.tokenizer_time import cpu_seconds
from modelyard.engine.llama.model import SHALLOW_BYTES, STACK_BYTES, STACK_BYTES_OF_BYTE, Model
from modelyard.engine.llama.weights import Weights
from modelyard.errors import ModelyardError, UnusableModel
from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.read import read_header

# Kinds of tokenizers beside the byte pairs of "gpt2". Source: llama.cpp, impl::load in src/llama-vocab.cpp.
OTHER_TOKENIZERS: Final = ("llama", "bert", "t5", "rwkv", "plamo2", "gemma4", "whitespace", "hybriddna")
LONGEST: Final = 300_000
# The most characters of each text of a case: a few long ones, and many short ones.
LENGTHS: Final = (*[LONGEST] * 10, *[600] * 200)
# Where the stack is measured, the time may grow with the square of the length.
MAX_MEASURED_LENGTH: Final = 20_000
# Runs of one unit take the most stack: so many, of so many bytes, are measured beside.
MEASURED_RUNS: Final = 12
RUN_BYTES: Final = 5000
# A text that is tokenised in the server itself may take so much of its time: more holds other requests up.
SLOW_S: Final = 2.0
CPU_S: Final = 100.0
_PAGE: Final = 4096
# Frames that do not grow with the text.
_STACK_OF_CALL: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Played:
    """What became of the texts of a case.

    Attributes:
        faults: what is wrong.
        refused: texts that were.
        stack_of_byte: the most stack that a byte took, of a text beyond ``SHALLOW_BYTES``.
        slowest_s: processor time of the text that took the longest here.
    """

    faults: list[str]
    refused: int
    stack_of_byte: float
    slowest_s: float


def play_text(seed: int, place: Place) -> Ending:
    """Some texts, with one vocabulary."""
    rng = random.Random(f"texts {seed}")
    what, model = _vocabulary(rng, place)
    path = place.folder / "vocabulary.gguf"
    # Something of weights: without any, the reader would not come to look at the vocabulary.
    path.write_bytes(replace(model, tensors=(Tensor(b"output_norm.weight", (1,), 0, bytes(4)),)).content())
    try:
        read_header(path)
    except UnusableModel:
        return Ending("refused")
    ended = run_child(tokenize, path, seed, cpu_s=CPU_S)
    if ended.end:
        raise Fault(f"{what}: {ended.end} ({ended.step})")
    played: Played = ended.value
    if played.faults:
        raise Fault(f"{what}: {played.faults[0]}")
    return Ending(
        "some refused" if played.refused else "tokenised",
        {"bytes of stack a byte": played.stack_of_byte, "seconds of a text": played.slowest_s},
    )


def _vocabulary(rng: random.Random, place: Place) -> tuple[str, GgufFile]:
    """A vocabulary and its name."""
    if rng.random() < 0.8:
        pre = rng.choice(PRE_TOKENIZERS)
        return f"pre '{pre}'", _real(rng, place).with_pair("tokenizer.ggml.pre", text(pre))
    kind = rng.choice(OTHER_TOKENIZERS)
    if kind in ("whitespace", "hybriddna", "gemma4"):
        base = _real(rng, place)
        if rng.random() < 0.3:
            base = base.with_pair("tokenizer.ggml.pre", text(rng.choice(PRE_TOKENIZERS)))
    else:
        base = GgufFile(tiny_model("bert" if kind == "bert" else "llama").pairs, ())
    base = base.with_pair("tokenizer.ggml.model", text(kind))
    if kind == "rwkv":
        words = ["<s>", *(f"\\x{byte:02x}" for byte in range(256)), "the", " the", "ab", "1", "11"]
        base = base.with_pair("tokenizer.ggml.tokens", texts(words))
        for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
            base = base.with_pair(key, None)
        base = base.with_pair("tokenizer.ggml.eos_token_id", number(0))
    if kind in ("t5", "plamo2"):
        tokens = base.pairs["tokenizer.ggml.tokens"]
        assert isinstance(tokens, Array)
        scores = tuple(rng.choice((0.0, -1.0, -10.0)) for _ in tokens.values)
        base = base.with_pair("tokenizer.ggml.scores", Array(gguf.FLOAT32, scores))
    return f"tokenizer '{kind}'", base


def _real(rng: random.Random, place: Place) -> GgufFile:
    """A real vocabulary: a part of it most often, which is read in a tenth of the time."""
    return vocabulary_of(place.weights) if rng.random() < 0.2 else GgufFile(cut_model(place.weights).pairs, ())


def tokenize(report: Callable[[str], None], path: Path, seed: int) -> Played:
    """Tokenise some texts as an engine does."""
    rng = random.Random(seed)
    weights = Weights([path], on_progress=lambda _: True, end_tokens=frozenset(), is_vocabulary_only=True)
    processes = TokenizerProcesses("fuzzed", [path])
    model, here = Model(weights, processes.tokenize), Model(weights)
    faults: list[str] = []
    refused, stack, slowest = 0, 0.0, 0.0
    try:
        for most in LENGTHS:
            content = nasty_text(rng, most)
            add_special, parse_special = rng.random() < 0.5, rng.random() < 0.7
            what = f"{len(content)} characters, {shown(content)}"
            report(what)
            begun = time.process_time()
            try:
                ids = model.tokenize(content, add_special=add_special, parse_special=parse_special)
            except ModelyardError as refusal:
                refused += 1
                if "ends its process" in str(refusal):
                    faults.append(f"{refusal} ({what})")
                continue
            used = time.process_time() - begun
            slowest = max(slowest, used)
            if used > max(SLOW_S, cpu_seconds(len(content)) / 2):
                faults.append(f"{used:.1f} s in the server itself ({what})")
            if not all(isinstance(one, int) for one in ids):
                faults.append(f"what is no id ({what})")
            raw = content.encode("utf-8", "replace")
            if SHALLOW_BYTES < len(raw) <= MAX_MEASURED_LENGTH:
                report(f"stack of {what}")
                stack = max(stack, taken := _stack_of_byte(here, raw))
                if taken > STACK_BYTES_OF_BYTE:
                    faults.append(f"{taken:.0f} bytes of stack a byte ({what})")
        for unit in rng.sample(UNITS, MEASURED_RUNS):
            report(f"stack of a run of {unit!r}")
            raw = unit.encode("utf-8", "replace")
            stack = max(stack, taken := _stack_of_byte(here, raw * (RUN_BYTES // len(raw))))
            if taken > STACK_BYTES_OF_BYTE:
                faults.append(f"{taken:.0f} bytes of stack a byte (a run of {unit!r})")
    finally:
        processes.close()
    return Played(faults, refused, stack, slowest)


def _stack_of_byte(model: Model, raw: bytes) -> float:
    """Bytes of stack that a byte of a text takes: those that were touched of the thread's own."""
    from modelyard.engine.llama.deep_stack import call_on_deep_stack

    def measured() -> int:
        before = _touched_bytes()
        model._tokens(raw, add_special=False, parse_special=True)
        return _touched_bytes() - before

    touched = call_on_deep_stack(measured, 2 * (STACK_BYTES + STACK_BYTES_OF_BYTE * len(raw)))
    return max(0, touched - _STACK_OF_CALL) / len(raw)


def _touched_bytes() -> int:
    """Memory of this thread's stack that was touched so far. Linux alone has /proc."""
    library: Any = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(256)
    start, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.pthread_self.restype = ctypes.c_void_p
    library.pthread_getattr_np(ctypes.c_void_p(library.pthread_self()), attributes)
    library.pthread_attr_getstack(attributes, ctypes.byref(start), ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    first = (start.value or 0) // _PAGE
    with open("/proc/self/pagemap", "rb", buffering=0) as pages:  # noqa: PTH123
        pages.seek(8 * first)
        entries = pages.read(8 * (size.value // _PAGE))
    # Bit 63 of each page's entry: it is in memory. Source: Linux, Documentation/admin-guide/mm/pagemap.rst.
    return _PAGE * sum(byte >> 7 for byte in entries[7::8])
