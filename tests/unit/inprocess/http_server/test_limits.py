"""The numbers of connections that a process may have, and what is too slow or too much."""

from __future__ import annotations

import pytest

from modelyard.inprocess.http_server.limits import (
    MAX_CONNECTIONS,
    MAX_FRAMING_BYTES,
    MIN_CONNECTIONS,
    MIN_READ_BYTES_PER_S,
    SPARE_CONNECTIONS,
    STALL_S,
    address_limit,
    connection_limit,
    is_framing_excessive,
    is_stalled,
)


@pytest.mark.parametrize(
    ("max_files", "models", "configured", "limit"),
    [
        (None, 1, None, MAX_CONNECTIONS),
        (None, 1, 10_000, 10_000),
        (2**20, 100, None, MAX_CONNECTIONS),
        (2**20, 100, 100, 100),
        (1024, 2, None, 1024 - 30 - 32 - 2 * 8 - SPARE_CONNECTIONS),
        (1024, 2, 5000, 1024 - 30 - 32 - 2 * 8 - SPARE_CONNECTIONS),
        (64, 2, None, 12),
        (32, 2, None, MIN_CONNECTIONS),
    ],
)
def test_connections_leave_files_for_the_servers_own_work(
    max_files: int | None, models: int, configured: int | None, limit: int
) -> None:
    assert connection_limit(max_files, 30, models, configured) == limit


def test_an_address_leaves_a_quarter_to_others() -> None:
    assert address_limit(100, None) == 75
    assert address_limit(9, None) == 7
    assert address_limit(100, 10) == 10
    assert address_limit(100, 1000) == 100


def test_the_smallest_chunks_of_an_honest_sender_pass() -> None:
    sent = 10_000
    assert not is_framing_excessive(framing=sent * len(b"1\r\n\r\n"), body=sent)
    lines = 10**6
    assert not is_framing_excessive(framing=lines * len(b"28\r\n\r\n"), body=lines * 40)
    assert is_framing_excessive(framing=lines * len(b"1\r\n\r\n"), body=lines)
    assert is_framing_excessive(framing=MAX_FRAMING_BYTES + 1, body=0)


def test_a_client_must_read_a_little() -> None:
    assert is_stalled(0, STALL_S)
    assert is_stalled(100, STALL_S)
    assert not is_stalled(int(MIN_READ_BYTES_PER_S * STALL_S), STALL_S)
