"""How what a configuration names becomes the files of a model on disk."""

from modelyard.hub.choose import Choice, choose_gguf
from modelyard.hub.gguf_header import GgufHeader, read_header
from modelyard.hub.gguf_values import GgufArray, GgufTensor
from modelyard.hub.resolve import ModelFiles, resolve

__all__ = [
    "Choice",
    "GgufArray",
    "GgufHeader",
    "GgufTensor",
    "ModelFiles",
    "choose_gguf",
    "read_header",
    "resolve",
]
