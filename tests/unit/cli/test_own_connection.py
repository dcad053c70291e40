"""How a chat with models of its own process ends."""

from __future__ import annotations

import signal

import pytest

from modelyard.cli.chat.connection import _signals_end_it


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_ends_a_chat_in_order_so_that_its_model_does_not_count_as_crashed(number: int) -> None:
    with pytest.raises(SystemExit) as ended, _signals_end_it():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _signals_end_it():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
