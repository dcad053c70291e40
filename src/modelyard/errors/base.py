"""The base of all errors."""

from __future__ import annotations

from typing import Any, ClassVar

# OpenAI's client does not retry at all if Retry-After is longer than this.
MAX_RETRY_AFTER_S = 120

MAX_MESSAGE_CHARS = 2000
"""Characters of an error message in a response. Messages may quote input, which may be megabytes."""


class ModelyardError(Exception):
    """Base of all errors that Modelyard raises on purpose.

    Attributes:
        code: stable name of the error, ``error.code`` in a response.
        status: HTTP status of the response.
        type: ``error.type`` in a response, in OpenAI's vocabulary.
        param: the request field at fault; None: no single field is.
        retry_after_s: whole seconds after which to retry; None: a retry does not help, or the time is unknown.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    param: str | None = None
    retry_after_s: int | None = None

    @property
    def wire_message(self) -> str:
        """The message, cut to ``MAX_MESSAGE_CHARS``."""
        message = str(self)
        return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"

    def __repr__(self) -> str:
        """Say what the error says: its arguments are parts of a message, as ``gather`` and a log would show them."""
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by attributes, because constructors have different parameters."""
        return restore_error, (type(self), self.args, self.__dict__)


def restore_error(kind: type[ModelyardError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> ModelyardError:
    """Restore a pickled error."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class MessageError(ModelyardError):
    """An error whose message is an argument."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message
