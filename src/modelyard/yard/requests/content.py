"""What a request asks of a model, as a digest: equal for requests that have an engine compute the same input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from modelyard.protocol.prompts import Audio, Image
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize


def content_of(model: str, message: Submit | Embed | Rank | Tokenize) -> str:
    """A digest of what ``message`` asks of ``model``, by the name that people know; the same within this process.

    Of a Submit these are the prompt with its images and sound, and the constraints on the answer; sampling, limits and
    priorities do not count: a request that ends its engine does so with another seed, too.
    """
    match message:
        case Submit():
            parts: tuple[Any, ...] = (message.prompt, message.response_format, message.grammar)
        case Embed():
            parts = message.inputs
        case Rank():
            parts = (message.query, message.documents)
        case Tokenize():
            parts = (message.prompt,)
    digest = hashlib.blake2b(digest_size=16)
    for piece in _pieces((model, type(message).__name__, *parts)):
        # With its length, so that no two sequences of pieces run together into the same bytes.
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    """The value as bytes, each with its kind before it, and with its size where it holds others."""
    match value:
        case str():
            yield b"text"
            # A lone surrogate may stand in a text; it has no UTF-8.
            yield value.encode("utf-8", "surrogatepass")
        case Image() | Audio():
            yield b"medium"
            # Their own digest stands for millions of bytes.
            yield value.digest
        case Mapping():
            yield f"mapping {len(value)}".encode()
            for key in sorted(value, key=str):
                yield from _pieces(key)
                yield from _pieces(value[key])
        case tuple() | list():
            yield f"sequence {len(value)}".encode()
            for part in value:
                yield from _pieces(part)
        case _ if is_dataclass(value):
            yield type(value).__name__.encode()
            for field in fields(value):
                yield from _pieces(getattr(value, field.name))
        case _:
            yield b"value"
            yield repr(value).encode()
