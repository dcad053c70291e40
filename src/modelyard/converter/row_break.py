"""Adds the embedding of the token [IMG_BREAK] to projectors of Pixtral's tower, which llama.cpp's converter leaves out.

llama.cpp inserts that embedding between the rows of an image, and does not load a projector without it. Its converter
copies it from the token embeddings, but filters out all tensors of the language model before.
Source: llama.cpp, conversion/llava.py, LlavaVisionModel; conversion/base.py, MmprojModel.filter_tensors.
"""

from __future__ import annotations

from typing import Any, Final

_EMBEDDINGS: Final = "embed_tokens.weight"
_LANGUAGE_MODEL: Final = "language_model."


def with_row_break(model_class: Any) -> Any:
    """Return the converter's projector class ``model_class``, changed to read the token embeddings if it needs them."""
    if not getattr(model_class, "use_break_tok", False):
        return model_class

    class WithRowBreak(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        @classmethod
        def filter_tensors(cls, item: Any) -> Any:
            name, read = item
            if name.endswith(_EMBEDDINGS):
                return super().filter_tensors((name.replace(_LANGUAGE_MODEL, ""), read))
            return super().filter_tensors(item)

    return WithRowBreak
