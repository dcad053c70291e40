"""Whatever the bytes: a header, or UnusableModel; and never more memory than the file is large."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.read import parse_header
from modelyard.formats.gguf.reader import BoundedReader
from support.gguf_writer import VOCABULARY, gguf, model_pairs, model_tensors, tiny_model
from support.thorough import thorough

WHOLE: Final = tiny_model()
HEADER_BYTES: Final = WHOLE.index(b"blk.0.ffn_down.weight") + 80
EVIL: Final = [0, 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1]

relaxed = thorough(800, suppress_health_check=[HealthCheck.too_slow])
fewer = thorough(400, suppress_health_check=[HealthCheck.too_slow])
places = st.integers(0, HEADER_BYTES)


def read(content: bytes) -> None:
    with suppress(UnusableModel):
        parse_header(BoundedReader(BytesIO(content), Path("fuzzed.gguf"), len(content)))


@relaxed
@given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(changes: list[tuple[int, int]]):
    content = bytearray(WHOLE)
    for place, byte in changes:
        content[place] = byte
    read(bytes(content))


@relaxed
@given(places, st.sampled_from(EVIL), st.sampled_from(["<Q", "<I"]))
def test_evil_numbers(place: int, number: int, layout: str):
    raw = struct.pack(layout, number % 2**32 if layout == "<I" else number)
    read(WHOLE[:place] + raw + WHOLE[place + len(raw) :])


@relaxed
@given(places, st.binary(max_size=40), st.integers(0, 40))
def test_bytes_that_are_put_in_or_taken_out(place: int, added: bytes, removed: int):
    read(WHOLE[:place] + added + WHOLE[place + removed :])


@fewer
@given(st.integers(0, len(WHOLE)))
def test_cut_off_files(length: int):
    read(WHOLE[:length])


@fewer
@given(st.binary(max_size=400))
def test_anything_after_the_magic(rest: bytes):
    read(b"GGUF\x03\0\0\0" + rest)


def test_no_length_is_trusted_with_memory():
    """Every length of the header in turn becomes an enormous one; the peak stays that of a few copies of the file."""
    # With few tokens it has the same lengths, and is read in a moment.
    small = gguf(model_pairs(vocabulary=VOCABULARY[:9]), model_tensors(9))
    tracemalloc.start()
    try:
        for place in range(8, small.index(b"blk.0.ffn_down.weight") + 80, 5):
            for number in (2**28, 2**62):
                tracemalloc.reset_peak()
                read(small[:place] + struct.pack("<Q", number) + small[place + 8 :])
                _, peak = tracemalloc.get_traced_memory()
                assert peak < 1_000_000
    finally:
        tracemalloc.stop()
