"""Lines of bounded length, out of the pieces in which they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.mcp.transports.lines import LineSplitter, LongLine

PIECES = st.lists(st.binary(max_size=20), max_size=20)


def split(*pieces, limit=100):
    splitter = LineSplitter(limit)
    return [line for piece in pieces for line in splitter.feed(piece)]


@given(PIECES)
def test_lines_are_the_same_in_whatever_pieces_they_arrive(pieces):
    whole = b"".join(pieces)
    assert split(*pieces) == split(whole)
    assert [line for line in split(*pieces) if isinstance(line, bytes)] == [
        line for line in whole.split(b"\n")[:-1] if len(line) <= 100
    ]


@given(st.integers(1, 5000), st.integers(1, 999))
def test_a_long_line_has_its_size_and_lines_after_it_are_read(size, step):
    content = b"x" * (100 + size)
    pieces = [content[at : at + step] for at in range(0, len(content), step)]
    assert split(*pieces, b"\nnext\n") == [LongLine(100 + size, None), b"next"]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":"', b'"}'),
        (b'{"id": 7, "result": "', b'"}'),
        (b'{"result":"', b'","jsonrpc":"2.0","id":7}'),
        (b'{"result":"', b'","id":7,"jsonrpc":"2.0"}'),
    ],
)
@pytest.mark.parametrize("step", [10, 100, 3000])
def test_a_long_answer_is_known_by_the_id_at_its_start_or_end(start, end, step):
    content = start + b"x" * 5000 + end
    pieces = [content[at : at + step] for at in range(0, len(content), step)]
    assert split(*pieces, b"\n") == [LongLine(len(content), 7)]


def test_an_id_within_the_content_is_none():
    assert split(b'{"result":{"id":7,' + b"x" * 5000 + b'"id":8}}\n') == [LongLine(5026, None)]
