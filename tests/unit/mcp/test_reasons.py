"""Why a server cannot be used."""

import ssl

import pytest

from modelyard.mcp.reasons import reason_of


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(), "nothing listens there"),
        (TimeoutError(), "it does not answer in time"),
        (FileNotFoundError(2, "No such file", "/no/folder"), "/no/folder does not exist"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (ssl.SSLError("wrong version"), "it does not speak TLS"),
        (caused(RuntimeError("all failed"), ConnectionRefusedError()), "nothing listens there"),
        (ExceptionGroup("group", [ExceptionGroup("inner", [ValueError("bad\nmore")])]), "bad"),
        (ValueError(), "ValueError"),
        (ValueError("a\x1b[31mb"), "a\\x1b[31mb"),
        (ValueError("key sekret used"), "key … used"),
    ],
)
def test_an_error_is_told_in_words(error, reason):
    assert reason_of(error, ["sekret"]) == reason


def test_a_reason_is_short():
    assert len(reason_of(ValueError("x" * 10_000))) == 301
