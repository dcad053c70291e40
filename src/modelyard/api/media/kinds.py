"""What is told of images and of sound where they are fetched by the same rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.api.media.audio import MAX_BYTES as MAX_AUDIO_BYTES
from modelyard.api.media.images import MAX_BYTES as MAX_IMAGE_BYTES


@dataclass(frozen=True, slots=True)
class MediaKind:
    """Images, or sound.

    Attributes:
        name, plural: of one of them, and of several, in messages.
        most_bytes: of a file.
        accept: what a server of the web is asked for.
        data_url: how a data URL of one begins.
        folders_key, private_key: what allows local files and private addresses, in ``[server]``.
    """

    name: str
    plural: str
    most_bytes: int
    accept: str
    data_url: str
    folders_key: str
    private_key: str

    @property
    def too_large(self) -> str:
        """What is answered to a file of more bytes."""
        return f"The {self.name} has more than the {self.most_bytes // 2**20} MiB that are taken."


IMAGE: Final = MediaKind(
    name="image",
    plural="images",
    most_bytes=MAX_IMAGE_BYTES,
    accept="image/*",
    data_url="data:image/png;base64,",
    folders_key="image_folders",
    private_key="allow_private_image_urls",
)
AUDIO: Final = MediaKind(
    name="audio",
    plural="audio",
    most_bytes=MAX_AUDIO_BYTES,
    accept="audio/*, application/ogg",
    data_url="data:audio/wav;base64,",
    folders_key="audio_folders",
    private_key="allow_private_audio_urls",
)
