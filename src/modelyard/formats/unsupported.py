"""Describes files that are not GGUF, by their first bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

HEAD_BYTES: Final = 256

_CONVERSION: Final = "Name the folder of the whole checkpoint, with safetensors weights, or a GGUF file of the model."
_DOWNLOAD: Final = "Download the file itself again."

_SIGNS: Final[tuple[tuple[Callable[[bytes], bool], str, str], ...]] = (
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "This is a Git LFS pointer, not the file that it stands for",
        "Fetch the weights: run 'git lfs pull' in its folder, or download the file again.",
    ),
    (lambda head: head[8:9] == b"{", "This is a safetensors file, not GGUF", _CONVERSION),
    (lambda head: head.startswith((b"PK\x03\x04", b"\x80\x02")), "This is a PyTorch file, not GGUF", _CONVERSION),
    (
        lambda head: head.startswith((b"lmgg", b"tjgg", b"fmgg", b"algg")),
        "This is in the old GGML format, from before GGUF",
        "Download the model as GGUF.",
    ),
    (
        lambda head: head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")),
        "This is a web page, not GGUF",
        f"The download was probably refused or redirected. {_DOWNLOAD}",
    ),
)


def describe_unsupported(head: bytes) -> tuple[str, str]:
    """Return the problem of a file that starts with ``head`` (HEAD_BYTES of it), and an advice.

    It knows the magics of safetensors (a u64 length, then JSON), of torch.save (a zip, or a pickle) and of the formats
    before GGUF (ggml, ggmf, ggjt, ggla). For any other file it shows the first bytes.
    """
    for matches, problem, advice in _SIGNS:
        if matches(head):
            return problem, advice
    return f"This is not a GGUF file: it starts with {head[:8].hex(' ')}, not with 47 47 55 46 ('GGUF')", _DOWNLOAD
