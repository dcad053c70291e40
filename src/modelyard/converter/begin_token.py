"""Reads from the checkpoint whether prompts begin with a BOS token.

For DeepSeek 3.2 the converter reads ``add_bos_token`` through transformers, which drops it for tokenizers of this kind,
so that the conversion fails although the checkpoint has the setting.
Source: llama.cpp, conversion/deepseek.py, DeepseekV32Model.set_vocab; gguf-py, SpecialVocab, which reads the file.
"""

from __future__ import annotations

import json
from typing import Any

from modelyard.converter.protocol import Refused


def with_declared_begin_token(model_class: Any) -> Any:
    """Return the converter's class ``model_class``, changed to read ``add_bos_token`` from tokenizer_config.json."""

    class Declared(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        def set_vocab(self) -> None:
            settings = json.loads((self.dir_model / "tokenizer_config.json").read_text("utf-8"))
            if not settings.get("add_bos_token"):
                raise Refused(
                    "The checkpoint's tokenizer_config.json does not say that prompts begin with a token of their own, "
                    "as those of this model do. Set 'add_bos_token' to true in it."
                )
            self._set_vocab_gpt2()

    return Declared
