"""Images, sound and texts from files: named by a command or an option, or dropped into the terminal."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from modelyard.cli.chat.conversation import Attachment
from modelyard.errors import InvalidRequest
from modelyard.system.typed_paths import expanded

MediaKind = Literal["image", "audio"]

# Endings by which a dropped path is recognised, and the media type of each. The server looks into the file.
_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{f".{name}": f"image/{name}" for name in ("png", "gif", "bmp", "webp", "avif", "jpeg")},
        ".jpg": "image/jpeg",
        **{f".{name}": f"audio/{name}" for name in ("wav", "mp3", "flac", "ogg", "opus")},
    }
)

# The server's own limits; a larger file is not read for nothing.
_MAX_BYTES: Final[Mapping[MediaKind, int]] = MappingProxyType({"image": 20 * 2**20, "audio": 25 * 2**20})
MAX_TEXT_BYTES: Final = 4 * 2**20

_ENDINGS: Final = "|".join(ending[1:] for ending in _TYPES)

# A path in quotes, or without, with blanks escaped as terminals do when a file is dropped on them.
_PATH: Final = re.compile(
    rf"""(?<!\S)(?:'(?P<single>[^'\n]+\.(?:{_ENDINGS}))'
    |"(?P<double>[^"\n]+\.(?:{_ENDINGS}))"
    |(?P<bare>(?:\\.|[^\s'"\\])+\.(?:{_ENDINGS})))(?=$|[\s,;:!?.)])""",
    re.IGNORECASE | re.VERBOSE,
)


def kind_of(path: str) -> MediaKind | None:
    """Return what a file has by its ending; None: neither an image nor sound."""
    media_type = _TYPES.get(Path(path).suffix.lower())
    if media_type is None:
        return None
    return "image" if media_type.startswith("image/") else "audio"


def take_dropped(text: str, is_file: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Return a message without the paths of images and sound in it, and these paths.

    A path counts if it has a slash and the file exists, as in ``ollama run``.
    """
    paths: list[str] = []

    def replace(match: re.Match[str]) -> str:
        quoted = match["single"] or match["double"]
        typed = quoted or _unescaped(match["bare"])
        path = _as_path(typed)
        if "/" not in typed or not is_file(path):
            return match[0]
        paths.append(path)
        return ""

    rest = _PATH.sub(replace, text)
    return (re.sub(r"[ \t]+", " ", rest).strip(), paths) if paths else (text, [])


def _as_path(text: str) -> str:
    """Return a path as it is opened: a ``file://`` URL becomes a path, ``~`` the home folder."""
    if text.lower().startswith("file://"):
        text = unquote(urlsplit(text).path)
    return str(expanded(text))


def first_path(argument: str) -> tuple[str, str]:
    """Split the argument of a command into a path, quoted or with escaped blanks, and the text after it."""
    match = re.match(r"""'([^']*)'|"([^"]*)"|((?:\\.|\S)+)""", argument)
    if match is None:
        return "", ""
    path = match[1] or match[2] or _unescaped(match[3] or "")
    return _as_path(path), argument[match.end() :].strip()


def _unescaped(path: str) -> str:
    return re.sub(r"\\(.)", r"\1", path)


def read_media(path: str, kind: MediaKind) -> Attachment:
    """Read an image or a clip of sound.

    Raises:
        InvalidRequest: the file cannot be read, or is too large.
    """
    data = _read(path, kind, _MAX_BYTES[kind])
    media_type = _TYPES.get(Path(path).suffix.lower(), "")
    if not media_type.startswith(kind):
        media_type = "image/png" if kind == "image" else "audio/wav"
    return Attachment(kind, Path(path).name, f"data:{media_type};base64,{base64.b64encode(data).decode()}")


def read_text(path: str) -> str:
    """Read a file of text.

    Raises:
        InvalidRequest: the file cannot be read, is too large, or is no text.
    """
    return decoded(_read(path, "file", MAX_TEXT_BYTES), path)


def decoded(data: bytes, name: str) -> str:
    """Return the text of what was read.

    Raises:
        InvalidRequest: it is no UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is no text in UTF-8 (byte {error.start} is not). Images: --image.") from None
    if "\0" in text:
        raise InvalidRequest(f"{name} is no text: it has zero bytes.")
    return text


def _read(path: str, what: str, limit: int) -> bytes:
    try:
        if not Path(path).is_file():
            raise InvalidRequest(_unreadable(path, what, "it is a folder" if Path(path).is_dir() else _missing(path)))
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else str(failure)
        raise InvalidRequest(_unreadable(path, what, str(reason))) from failure
    if len(data) > limit:
        raise InvalidRequest(f"{path}: The {what} has more than {limit // 2**20} MiB, which is the limit.")
    return data


def _missing(path: str) -> str:
    return "it is no regular file" if Path(path).exists() else "No such file or directory"


def _unreadable(path: str, what: str, reason: str) -> str:
    return f"{path}: The {what} cannot be read: {reason}. Check its name."
