"""llguidance is called by its C interface, of which no header is at hand: what is taken for granted is tried."""

from __future__ import annotations

import ctypes
import threading

import llguidance
import pytest

from modelyard.engine.guidance import Vocabulary, library
from unit.engine.guidance.words import tokenize

WAIT_S = 30.0
FILL = 0xAA


def test_another_version_is_refused_by_its_number() -> None:
    library.require(llguidance.__version__)
    with pytest.raises(ImportError, match=rf"needs llguidance {library.VERSION}, not 1\.10\.0"):
        library.require("1.10.0")


def test_structs_are_laid_out_as_llguidance_fills_them() -> None:
    class Guarded(ctypes.Structure):
        _fields_ = (("init", library.MatcherInit), ("behind", ctypes.c_ubyte * 64))

    guarded = Guarded()
    ctypes.memset(ctypes.byref(guarded), FILL, ctypes.sizeof(guarded))
    library.set_defaults(guarded.init, 12345)
    init = guarded.init
    assert set(guarded.behind) == {FILL}
    assert (init.tokenizer, init.log_buffer_level, init.log_stderr_level) == (12345, 0, 1)
    assert (init.ff_tokens_ok, init.backtrack_ok) == (False, False)
    written = bytes(init.limits)
    flags = library.ParserLimits.precompute_large_lexemes.offset
    assert written[: flags + 3] == written[:flags] + b"\1\1" + bytes([FILL])
    named = {name: getattr(init.limits, name) for name, _ in library.ParserLimits._fields_}
    defaults = llguidance.LLParserLimits()
    told = str(defaults).partition("{ ")[2].removesuffix(" }").lower()
    assert ", ".join(f"{name}: {value}".lower() for name, value in named.items()) == told


def test_a_vocabulary_that_llguidance_refuses_is_an_error_with_its_reason() -> None:
    with pytest.raises(ValueError, match=r"EOS token ID 9 is out of range \(vocab_size=1\)"):
        Vocabulary([b"a"], [], frozenset((0, 9)), tokenize)
    with pytest.raises(ValueError, match="cannot read the vocabulary"):
        Vocabulary([b"a", b"b" * 100_000], [], frozenset((0,)), tokenize)


def test_other_threads_go_on_while_a_large_vocabulary_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [b"", *(f"{number:x}".encode() for number in range(262_143))]
    steps, is_read, goes_on = [0], threading.Event(), threading.Event()

    def step() -> None:
        while not is_read.wait(0.001):
            steps[0] += 1
            goes_on.set()

    new_tokenizer = library.new_tokenizer

    def counted(*arguments: object) -> object:
        assert goes_on.wait(WAIT_S)
        before = steps[0]
        made = new_tokenizer(*arguments)
        steps.append(steps[0] - before)
        return made

    monkeypatch.setattr(library, "new_tokenizer", counted)
    other = threading.Thread(target=step)
    other.start()
    try:
        Vocabulary(tokens, [0], frozenset((0,)), tokenize)
    finally:
        is_read.set()
        other.join(WAIT_S)
    # Were Python's lock held, there could be one, just before it is taken and just behind it.
    assert steps[1] > 10, steps
