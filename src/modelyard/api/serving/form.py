"""The route of an endpoint that takes ``multipart/form-data`` with a file, parsed within limits."""

from __future__ import annotations

from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelyard.api.serving.json_route import JsonRoute
from modelyard.errors import InvalidRequest

MAX_PARTS: Final = 64
# Bytes of a field that is no file: a prompt may be a page long.
MAX_FIELD_LENGTH: Final = 2**16

_MEDIA_TYPE: Final = b"multipart/form-data"


class FormRoute(JsonRoute):
    """A JsonRoute for a body that is a form. Fields are str, files are bytes."""

    media_type = "multipart/form-data"

    def parse(self, body: bytes, content_type: str) -> Any:
        """Return the fields of the form in the body.

        Raises:
            InvalidRequest: the body is no form, or exceeds a limit.
        """
        return parse_form(body, content_type)


def parse_form(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields of a form by name: text, or the bytes of a file; a list if the name ends in ``[]``.

    Raises:
        InvalidRequest: the body is no form, is incomplete, or has too many or too long fields.

    Source: RFC 7578.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != _MEDIA_TYPE or not boundary:
        sent = f"as '{content_type[:200]}'" if content_type else "with no Content-Type"
        raise InvalidRequest(
            f"The body must be a form, with Content-Type: multipart/form-data and a boundary. It was sent {sent}."
        )
    parts = _Parts()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.begin,
            "on_header_field": parts.header_name,
            "on_header_value": parts.header_value,
            "on_header_end": parts.header_end,
            "on_headers_finished": parts.headers_finished,
            "on_part_data": parts.data,
            "on_part_end": parts.end,
            "on_end": parts.end_of_form,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as broken:
        raise InvalidRequest(f"The form cannot be read: {broken}.") from broken
    if not parts.is_whole:
        raise InvalidRequest("The form breaks off before its last boundary. Send it again.")
    return parts.fields


class _Parts:
    """Collects the parts that the parser reports.

    Attributes:
        fields: the fields so far.
        is_whole: whether the last boundary was read.
    """

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.is_whole = False
        self._count = 0
        self._headers: dict[bytes, bytes] = {}
        self._header = (bytearray(), bytearray())
        self._name = ""
        self._is_file = False
        self._content = bytearray()

    def begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise InvalidRequest(f"The form has more than the {MAX_PARTS} fields that are taken.")
        self._headers, self._content = {}, bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if disposition != b"form-data" or not name:
            raise InvalidRequest("A part of the form has no name in a Content-Disposition: form-data header.")
        self._name = name.decode("utf-8", "replace")
        self._is_file = b"filename" in options or b"filename*" in options

    def data(self, data: bytes, start: int, end: int) -> None:
        self._content += memoryview(data)[start:end]
        if not self._is_file and len(self._content) > MAX_FIELD_LENGTH:
            raise InvalidRequest(
                f"'{self._name}' has more than the {MAX_FIELD_LENGTH} bytes that are taken.", self._name
            )

    def end(self) -> None:
        value: bytes | str = bytes(self._content)
        if not self._is_file:
            try:
                value = bytes(self._content).decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest(f"'{self._name}' is not UTF-8.", self._name) from None
        name = self._name.removesuffix("[]")
        if name != self._name:
            self.fields.setdefault(name, [])
            if isinstance(self.fields[name], list):
                self.fields[name].append(value)
        elif name in self.fields:
            raise InvalidRequest(f"The form has '{name}' twice. Send it once.", name)
        else:
            self.fields[name] = value

    def end_of_form(self) -> None:
        self.is_whole = True
