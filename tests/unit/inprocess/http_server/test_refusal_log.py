"""What the log says of lost connections, and how often."""

from __future__ import annotations

from modelyard.inprocess.http_server.places import Loss
from modelyard.inprocess.http_server.refusal_log import MAX_ADDRESSES, MIN_PAUSE_S, Losses


def test_a_line_says_how_many_why_and_whose() -> None:
    losses = Losses()
    for _ in range(3):
        losses.note(Loss.HEAD_LATE, "10.0.0.7")
    losses.note(Loss.STALLED, "10.0.0.8")
    losses.note(Loss.HANDSHAKE, None)
    assert losses.line(0.0, held=5, limit=10) == (
        "Connections were refused or given up: 3 sent no complete head in time, 1 did not read their answer, "
        "1 failed in the TLS handshake; most from 10.0.0.7 (3). 5 of 10 places are in use"
    )


def test_lines_are_rare_and_none_is_lost() -> None:
    losses = Losses()
    losses.note(Loss.UNFIT, None)
    assert losses.line(0.0, 0, 1) is not None
    losses.note(Loss.UNFIT, None)
    assert losses.line(MIN_PAUSE_S / 2, 0, 1) is None
    losses.note(Loss.UNFIT, None)
    line = losses.line(MIN_PAUSE_S, 0, 1)
    assert line is not None
    assert " 2 sent what is no request" in line
    assert losses.line(10 * MIN_PAUSE_S, 0, 1) is None
    assert losses.total[Loss.UNFIT] == 3


def test_what_ends_in_the_ordinary_course_is_no_line() -> None:
    losses = Losses()
    losses.note(Loss.IDLE, "10.0.0.7")
    assert losses.line(0.0, 0, 1) is None


def test_addresses_without_number_are_not_all_held() -> None:
    losses = Losses()
    for number in range(MAX_ADDRESSES + 10):
        losses.note(Loss.UNFIT, f"address {number}")
    losses.note(Loss.UNFIT, "address 0")
    line = losses.line(0.0, 0, 1)
    assert line is not None
    assert "most from address 0 (2)" in line
