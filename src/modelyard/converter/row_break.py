"""The embedding of the token [IMG_BREAK] in projectors of Pixtral's tower, which llama.cpp's converter leaves out.

llama.cpp puts that embedding between the rows of a picture, and does not load a projector without it. Its converter
copies it from the token embeddings, but skips all tensors of the language model before it gets there.
Source: llama.cpp, conversion/llava.py, LlavaVisionModel; conversion/base.py, MmprojModel.filter_tensors.
"""

from __future__ import annotations

from typing import Any, Final

_EMBEDDINGS: Final = "embed_tokens.weight"
_LANGUAGE_MODEL: Final = "language_model."


def with_row_break(model_class: Any) -> Any:
    """The converter's projector class ``model_class``, reading the token embeddings where it looks for that token."""
    if not getattr(model_class, "use_break_tok", False):
        return model_class

    class Broken(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        @classmethod
        def filter_tensors(cls, item: Any) -> Any:
            name, read = item
            if name.endswith(_EMBEDDINGS):
                return super().filter_tensors((name.replace(_LANGUAGE_MODEL, ""), read))
            return super().filter_tensors(item)

    return Broken
