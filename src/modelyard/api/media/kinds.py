"""What differs between images and sound when files are fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.api.media.audio import MAX_BYTES as MAX_AUDIO_BYTES
from modelyard.api.media.images import MAX_BYTES as MAX_IMAGE_BYTES


@dataclass(frozen=True, slots=True)
class MediaKind:
    """Images, or sound.

    Attributes:
        name, plural: names in messages.
        max_bytes: size limit of a file.
        accept: the Accept header of a fetch.
        data_url: the start of a data URL.
        folders_key, private_key: keys in ``[server]`` that allow local files and private addresses.
    """

    name: str
    plural: str
    max_bytes: int
    accept: str
    data_url: str
    folders_key: str
    private_key: str

    @property
    def too_large(self) -> str:
        """The error message for a larger file."""
        return f"The {self.name} has more than {self.max_bytes // 2**20} MiB, which is the limit."


IMAGE: Final = MediaKind(
    name="image",
    plural="images",
    max_bytes=MAX_IMAGE_BYTES,
    accept="image/*",
    data_url="data:image/png;base64,",
    folders_key="image_folders",
    private_key="allow_private_image_urls",
)
AUDIO: Final = MediaKind(
    name="audio",
    plural="audio",
    max_bytes=MAX_AUDIO_BYTES,
    accept="audio/*, application/ogg",
    data_url="data:audio/wav;base64,",
    folders_key="audio_folders",
    private_key="allow_private_audio_urls",
)
