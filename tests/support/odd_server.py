"""A program on a port that is not Modelyard: it sends the same bytes to each connection, or nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def odd_server(answer: bytes | None) -> Iterator[str]:
    """The URL of a program that sends ``answer`` once it has read something; None: it never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    kept.append(connection)
                    if answer is not None:
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)
            for connection in kept:
                connection.close()


def http_answer(status: str, content_type: str, body: str) -> bytes:
    """A whole answer of HTTP."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body.encode())}\r\n"
    return f"{head}connection: close\r\n\r\n{body}".encode()


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port of this machine that refuses connections: it is bound, and nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]
