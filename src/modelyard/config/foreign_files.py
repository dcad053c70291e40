"""Recognises files of other tools that are given as a configuration, and says how to write them here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SCANNED_CHARS: Final = 64 * 1024

_YAML_LINE: Final = re.compile(r"^[ \t]*(?:- )?[\w.\"'/-]+:(?:\s|$)", re.MULTILINE)
_TOML_LINE: Final = re.compile(r"^[ \t]*(?:[\w.\"'-]+\s*=|\[)", re.MULTILINE)
_MODELFILE: Final = re.compile(r"^[ \t]*FROM[ \t]+\S+[ \t]*$", re.MULTILINE | re.IGNORECASE)
_SWAP: Final = re.compile(r"^[ \t]+(?:cmd|ttl|proxy):", re.MULTILINE)
_INI_VALUE: Final = re.compile(r"^[ \t]*[\w-]+[ \t]*=[ \t]*(?![\"'\[{]|true\b|false\b|[+-]?[\d.]+\s*$)\S", re.MULTILINE)
_QUOTED_VALUE: Final = re.compile(r"=[ \t]*[\"']")
_INI_PRESET: Final = re.compile(
    r"^[ \t]*(?:\[\*\]|(?:hf-repo|hf|model|m|ctx-size|c|n-gpu-layers|ngl|mmproj|parallel|np|version|"
    r"LLAMA_ARG_\w+)[ \t]*=[ \t]*[^\"'\s])",
    re.MULTILINE,
)

_INIT: Final = "`modelyard init FOLDER` writes a file of the models in a folder."


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """What a file is, and how to write it here. Both are sentences."""

    message: str
    hint: str


def recognise(text: str) -> ForeignFile | None:
    """Return which other format the text has; None where it has none of those that are known."""
    text = text[:_SCANNED_CHARS].removeprefix("\ufeff")
    if text.startswith("GGUF"):
        return ForeignFile("This is a model, no configuration.", "Serve it with `modelyard serve FILE`.")
    # In a real TOML file "FROM" begins no line, and a brace or a key with a colon begins none either.
    if _MODELFILE.search(text) and not _TOML_LINE.search(text.partition('"""')[0]):
        return ForeignFile(
            "This is a Modelfile of Ollama; Modelyard reads TOML.",
            "Write a [[models]] table: FROM is model_id, PARAMETER num_ctx is max_seq_len in [models.device], other "
            "parameters are keys of [models.sampling], TEMPLATE is a Jinja file that chat_template names, and SYSTEM "
            "is system.",
        )
    if text.lstrip().startswith(("{", "[{")):
        return ForeignFile("This is JSON; Modelyard reads TOML.", f'Write "key": value as key = value. {_INIT}')
    yaml, toml = len(_YAML_LINE.findall(text)), len(_TOML_LINE.findall(text))
    if yaml > 2 * toml:
        return _yaml(text)
    if _INI_PRESET.search(text) and _INI_VALUE.search(text) and not _QUOTED_VALUE.search(text):
        return ForeignFile(
            "This is an INI file, as llama-server's presets are; Modelyard reads TOML.",
            "Write a [[models]] table for each [section]: its name is alias, model or hf-repo is model_id, ctx-size is "
            f"max_seq_len in [models.device], and text is in quotes. {_INIT}",
        )
    return None


def _yaml(text: str) -> ForeignFile:
    if _SWAP.search(text):
        return ForeignFile(
            "This is YAML, as llama-swap's configuration is; Modelyard reads TOML.",
            "Write a [[models]] table for each model: its name is alias, the file behind -m in cmd is model_id, -c is "
            "max_seq_len in [models.device], ttl is idle_unload_seconds, and aliases stay aliases.",
        )
    return ForeignFile("This is YAML; Modelyard reads TOML.", f"Write key: value as key = value. {_INIT}")
