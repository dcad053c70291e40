"""Images and sound that requests bring, or name: fetched within limits, decoded, and brought to what models take."""

from modelyard.api.media.load import AudioFile, AudioReference, ImageReference, MediaLoader, Reference

__all__ = ["AudioFile", "AudioReference", "ImageReference", "MediaLoader", "Reference"]
