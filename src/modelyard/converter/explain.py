"""Explains failures of llama.cpp's converter to the user. Pure."""

from __future__ import annotations

import re
from typing import Final

from modelyard.converter.protocol import Refused

_UNMAPPED: Final = re.compile(r"Can not map tensor '([^']*)'|Unprocessed (?:experts|tensors?)[^:]*: (.*)", re.DOTALL)
_DUPLICATE: Final = re.compile(r"Duplicated tensor name '([^']*)'")
# Attribute that the converter reads of tokenizers like tiktoken's, which are programs of their checkpoints.
_PROGRAM_TOKENIZER: Final = "mergeable_ranks"
_TOWER: Final = re.compile(r"Unsupported model type: (\w+)")
_PRE_TOKENIZER: Final = "BPE pre-tokenizer was not recognized"
_MAX_TEXT_LENGTH: Final = 400

_ALTERNATIVE: Final = "Use a published GGUF file of this model."


def refusal(error: Exception, architecture: str) -> Refused:
    """Return the refusal of a checkpoint on which the converter's class for ``architecture`` raised ``error``.

    Its message names the key, tensor or file that caused the failure, as far as the error contains it, and a remedy.
    """
    text = " ".join(str(error).split())[:_MAX_TEXT_LENGTH]
    about = f"llama.cpp's converter cannot convert this {architecture}"
    match error:
        case KeyError():
            key = error.args[0] if error.args else "?"
            return Refused(
                f"{about}: it needs {_keys(key)}, which the model's configuration (config.json, the files of its "
                f"tokenizer, preprocessor_config.json) does not have. Download what is missing. {_ALTERNATIVE}"
            )
        case FileNotFoundError():
            name = error.filename or text
            return Refused(f"{about}: the file {name} is missing. Put it beside the weights. {_ALTERNATIVE}")
        case ImportError():
            return Refused(f"{about}: the Python package {error.name or text!r} is missing. Install it with pip.")
    if (found := _UNMAPPED.search(str(error))) is not None:
        return Refused(
            f"{about}: it does not know the tensor '{(found[1] or found[2]).strip()[:_MAX_TEXT_LENGTH]}'. The "
            f"checkpoint is of a variant that llama.cpp does not support. {_ALTERNATIVE}"
        )
    if (found := _DUPLICATE.search(str(error))) is not None:
        return Refused(f"{about}: two of its tensors become one, '{found[1]}'. {_ALTERNATIVE}")
    if isinstance(error, AttributeError) and _PROGRAM_TOKENIZER in str(error):
        return Refused(
            f"{about}: its tokenizer is a program that comes with the checkpoint, which is not run. {_ALTERNATIVE}"
        )
    if (found := _TOWER.search(str(error))) is not None:
        return Refused(f"{about}: it does not know a tower of the type '{found[1]}'. {_ALTERNATIVE}")
    if _PRE_TOKENIZER in str(error):
        return Refused(
            f"{about}: llama.cpp does not know how its tokenizer splits text (an unknown BPE pre-tokenizer), so that "
            f"its answers would be wrong. {_ALTERNATIVE}"
        )
    return Refused(f"{about}: {type(error).__name__}: {text or 'no reason is given'}. {_ALTERNATIVE}")


def _keys(key: object) -> str:
    """Return the missing key or keys; the converter writes several as ``could not find any of: [...]``."""
    text = str(key)
    _, separator, several = text.partition("could not find any of: ")
    return f"one of the keys {several}" if separator else f"the key '{text}'"
