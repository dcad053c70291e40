"""Makes llama.cpp's library ``gguf`` importable, which lies beside the converter that it belongs to."""

from __future__ import annotations

import sys

from modelyard.hub.sources.llama_converter import search_path


def add_to_path() -> None:
    """Put the installed converter in front of everything else that is imported from."""
    sys.path[:0] = [folder for folder in search_path() if folder not in sys.path]
