"""What headers and keep_alive say of a request's waiting."""

import math

import pytest
from starlette.datastructures import Headers

from modelyard.api.serving.wait_options import seconds, wait_options
from modelyard.errors import InvalidRequest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (30, 30.0),
        (1.5, 1.5),
        ("45", 45.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1m", math.inf),
        (math.inf, math.inf),
        ("-0s", 0.0),
        ("-0", 0.0),
        (10**400, math.inf),
        (-(10**400), math.inf),
        ("9" * 400, math.inf),
        ("10 minutes", 600.0),
    ],
)
def test_a_duration_is_read_as_ollamas_clients_write_it(value, expected):
    assert seconds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "",
        "m",
        True,
        None,
        [],
        math.nan,
        "nan",
        "inf",
        "1_0",
        " 5 ",
        "1e3",
        "\N{ARABIC-INDIC DIGIT THREE}",
    ],
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="must be seconds"):
        seconds(value)


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("wait=0", 0.0),
        ("wait=30", 30.0),
        ('respond-async, wait="10"', 10.0),
        ("WAIT = 5; foo", 5.0),
        ("wait=soon, wait=7", 7.0),
        ('handling="lenient, wait=1"', None),
        ('note="a\\"b, wait=1", wait=2', 2.0),
        ('wait="3', None),
        ("wait=1 wait=2", None),
        ("wait=-1", None),
        ("wait=soon", None),
        ("await=3", None),
        ("", None),
    ],
)
def test_prefer_says_how_long_a_request_waits_and_is_ignored_where_it_cannot_be_read(prefer, wait_s):
    assert wait_options(Headers({"Prefer": prefer}), None).wait_s == wait_s


def test_preferences_may_come_in_several_headers_of_which_the_first_that_says_it_counts():
    lines = ["respond-async", "wait=4", "wait=9"]
    headers = Headers(raw=[(b"prefer", line.encode()) for line in lines])
    assert wait_options(headers, None).wait_s == 4.0


def test_without_headers_nothing_is_said():
    said = wait_options(Headers({}), 7.0)
    assert (said.priority, said.wait_s, said.keep_alive_s) == (None, None, 7.0)


@pytest.mark.parametrize(("header", "priority"), [("5", 5), ("-100", -100), ("+7", 7), (" 0 ", 0)])
def test_a_priority_is_a_whole_number(header, priority):
    assert wait_options(Headers({"X-Priority": header}), None).priority == priority


@pytest.mark.parametrize("header", ["101", "-101", "high", "1.5", ""])
def test_another_priority_is_refused_by_name(header):
    with pytest.raises(InvalidRequest, match="X-Priority"):
        wait_options(Headers({"X-Priority": header}), None)
