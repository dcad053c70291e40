"""Images that requests bring, or name: fetched within limits, decoded, and scaled to what models look at."""

from modelyard.api.media.load import ImageLoader, ImageReference

__all__ = ["ImageLoader", "ImageReference"]
