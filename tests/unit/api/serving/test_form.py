"""Forms with files: what is read of them, and what is refused."""

from __future__ import annotations

import pytest

from modelyard.api.serving.form import MAX_FIELD_LENGTH, MAX_PARTS, parse_form
from modelyard.errors import InvalidRequest

TYPE = "multipart/form-data; boundary=b"


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    said = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return b"--b\r\nContent-Disposition: " + said.encode() + b"\r\n\r\n" + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


def refused(body: bytes, content_type: str = TYPE) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        parse_form(body, content_type)
    return refusal.value


def test_fields_are_text_and_files_are_bytes() -> None:
    found = parse_form(
        form(part("file", b"\0\xff--b\r\n", "a.wav"), part("model", "é".encode()), part("empty", b"")), TYPE
    )
    assert found == {"file": b"\0\xff--b\r\n", "model": "é", "empty": ""}


def test_names_of_lists_gather_their_values() -> None:
    assert parse_form(form(part("x[]", b"a"), part("x[]", b"b")), TYPE) == {"x": ["a", "b"]}


def test_a_boundary_may_be_quoted_and_the_body_have_a_preamble_and_an_end() -> None:
    assert parse_form(form(part("a", b"1")) + b"more", 'multipart/form-data; boundary="b"') == {"a": "1"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "breaks off"),
        (part("a", b"1"), "breaks off"),
        (part("a", b"1")[:-6], "breaks off"),
        (b"--other\r\n", "cannot be read"),
        (b"--b\r\nContent-Disposition form-data\r\n", "cannot be read"),
        (form(b"--b\r\n\r\nx\r\n"), "has no name"),
        (form(b"--b\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n"), "has no name"),
        (form(part("a", b"1"), part("a", b"2")), "has 'a' twice"),
        (form(part("a", b"\xff")), "'a' is not UTF-8"),
        (form(part("a", b"x" * (MAX_FIELD_LENGTH + 1))), "'a' has more than the 65536 bytes"),
        (form(*(part(f"a{number}", b"") for number in range(MAX_PARTS + 1))), "more than the 64 fields"),
        (form(b"--b\r\nX: " + b"y" * 5000 + b"\r\n\r\n\r\n"), "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused(body: bytes, message: str) -> None:
    assert message in str(refused(body))


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=b"])
def test_another_type_of_body_is_refused(content_type: str) -> None:
    assert "must be a form, with Content-Type: multipart/form-data" in str(refused(form(), content_type))
