"""Errors of a command that uses a running server: the server is not there, is another program, or refuses."""

from __future__ import annotations

from modelyard.errors.base import MessageError


class ServerUnusable(MessageError):
    """A command cannot use the server that it means."""

    code = "server_unusable"
    status = 502


class ServerUnreachable(ServerUnusable):
    """No server answers at an address.

    Args:
        url: the address.
        why: what the attempt failed with.
        hint: what to do, as a sentence.
        is_refused: whether nothing listens there.
    """

    code = "server_unreachable"

    def __init__(self, url: str, why: str, hint: str, *, is_refused: bool = False) -> None:
        super().__init__(f"No server answers at {url}: {why}. {hint}")
        self.args = (url, why, hint)
        self.url, self.why, self.hint, self.is_refused = url, why, hint, is_refused


class NotModelyard(ServerUnusable):
    """Another program answers at an address.

    Args:
        url: the address.
        found: what it did, such as "answered 404 Not Found".
    """

    code = "not_modelyard"

    def __init__(self, url: str, found: str) -> None:
        super().__init__(
            f"The program at {url} is not Modelyard: it {found}. Name the server with --url or MODELYARD_HOST."
        )
        self.args = (url, found)
        self.url, self.found = url, found


class ServerRefused(ServerUnusable):
    """The server answered a request with an error.

    Args:
        message: the server's message.
        server_code: the server's code of the error, such as "model_not_found".
        server_status: the HTTP status of the answer.
    """

    code = "server_refused"

    def __init__(self, message: str, server_code: str, server_status: int) -> None:
        super().__init__(message)
        self.args = (message, server_code, server_status)
        self.server_code, self.server_status = server_code, server_status


class KeyRefused(ServerRefused):
    """The server needs an API key, or does not know the one that was sent.

    Args:
        url: the address.
        was_sent: whether a key was sent.
    """

    code = "key_refused"

    def __init__(self, url: str, *, was_sent: bool) -> None:
        what = "does not know this API key" if was_sent else "needs an API key"
        super().__init__(
            f"The server at {url} {what}. Set MODELYARD_API_KEY, or name a file that holds the key: --key-file FILE.",
            "invalid_api_key",
            401,
        )


class AmbiguousServer(ServerUnusable):
    """Several servers run on this machine, and the command does not say which one it means."""

    code = "ambiguous_server"
