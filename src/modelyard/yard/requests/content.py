"""A digest of the input of a request, which is equal for requests that make an engine compute the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from modelyard.protocol.prompts import Audio, Image
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize


def content_of(model: str, message: Submit | Embed | Rank | Tokenize) -> str:
    """Return a digest of what ``message`` has ``model`` compute; stable within this process.

    For a Submit it covers the prompt with its images and sound, and the constraints on the answer. Sampling, limits and
    priorities do not count: a request that ends its engine does so with another seed, too.

    Args:
        model: its id, as users know it.
        message: as its engine is sent it.
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
        # Each piece is preceded by its length, so that no two sequences of pieces give the same bytes.
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield the value as bytes, each part preceded by its kind, and a collection by its size."""
    match value:
        case str():
            yield b"text"
            # A text may hold lone surrogates, which UTF-8 cannot encode.
            yield value.encode("utf-8", "surrogatepass")
        case Image() | Audio():
            yield b"medium"
            # The digest of a medium stands for its millions of bytes.
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
