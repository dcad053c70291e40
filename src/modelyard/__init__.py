"""Modelyard: many language models in one process, behind one OpenAI-compatible address."""

from modelyard.errors import ModelyardError

__all__ = ["ModelyardError", "__version__"]

__version__ = "0.1.0"
