"""What a failure inside llama.cpp's converter means for the person whose model it is. Pure."""

from __future__ import annotations

import re
from typing import Final

from modelyard.converter.protocol import Refused

_UNMAPPED: Final = re.compile(r"Can not map tensor '([^']*)'|Unprocessed (?:experts|tensors?)[^:]*: (.*)", re.DOTALL)
_DUPLICATE: Final = re.compile(r"Duplicated tensor name '([^']*)'")
# What the converter asks of tokenizers of the kind of tiktoken, which come as a program with their checkpoints.
_PROGRAM: Final = "mergeable_ranks"
_TOWER: Final = re.compile(r"Unsupported model type: (\w+)")
_PRE_TOKENIZER: Final = "BPE pre-tokenizer was not recognized"
_LONGEST: Final = 400

_OTHERWISE: Final = "Use a GGUF file that somebody has published of this model."


def refusal(error: Exception, architecture: str) -> Refused:
    """The refusal of a checkpoint on which the converter's class for ``architecture`` raised ``error``.

    It names the key, tensor or file that the failure is about, as far as the error tells it, and what would help.
    """
    said = " ".join(str(error).split())[:_LONGEST]
    about = f"llama.cpp's converter cannot convert this {architecture}"
    match error:
        case KeyError():
            key = error.args[0] if error.args else "?"
            return Refused(
                f"{about}: it needs {_keys(key)}, which the model's configuration (config.json, the files of its "
                f"tokenizer, preprocessor_config.json) does not have. Download what is missing. {_OTHERWISE}"
            )
        case FileNotFoundError():
            name = error.filename or said
            return Refused(f"{about}: the file {name} is missing. Put it beside the weights. {_OTHERWISE}")
        case ImportError():
            return Refused(f"{about}: the Python package {error.name or said!r} is missing. Install it with pip.")
    if (found := _UNMAPPED.search(str(error))) is not None:
        return Refused(
            f"{about}: it does not know the tensor '{(found[1] or found[2]).strip()[:_LONGEST]}'. The checkpoint is of "
            f"a variant that llama.cpp does not support. {_OTHERWISE}"
        )
    if (found := _DUPLICATE.search(str(error))) is not None:
        return Refused(f"{about}: two of its tensors become one, '{found[1]}'. {_OTHERWISE}")
    if isinstance(error, AttributeError) and _PROGRAM in str(error):
        return Refused(
            f"{about}: its tokenizer is a program that comes with the checkpoint, which is not run. {_OTHERWISE}"
        )
    if (found := _TOWER.search(str(error))) is not None:
        return Refused(f"{about}: it does not know a tower of the type '{found[1]}'. {_OTHERWISE}")
    if _PRE_TOKENIZER in str(error):
        return Refused(
            f"{about}: llama.cpp does not know how its tokenizer splits text (an unknown BPE pre-tokenizer), so that "
            f"its answers would be wrong. {_OTHERWISE}"
        )
    return Refused(f"{about}: {type(error).__name__}: {said or 'no reason is given'}. {_OTHERWISE}")


def _keys(key: object) -> str:
    """The key or keys that are missing; the converter names several as ``could not find any of: [...]``."""
    text = str(key)
    _, colon, several = text.partition("could not find any of: ")
    return f"one of the keys {several}" if colon else f"the key '{text}'"
