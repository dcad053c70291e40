"""The setting that prompts of DeepSeek 3.2 begin with a BOS token is read from its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.converter.begin_token import with_declared_begin_token
from modelyard.converter.protocol import Refused


class Converter:
    """The vocabulary part of a class of llama.cpp's converter."""

    model_arch = "deepseek32"
    is_written = False

    def __init__(self, dir_model: Path) -> None:
        self.dir_model = dir_model

    def _set_vocab_gpt2(self) -> None:
        self.is_written = True


@pytest.mark.parametrize("settings", [{"add_bos_token": True}, {"add_bos_token": False}, {}])
def test_the_vocabulary_is_written_if_the_file_says_so(settings: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    model = with_declared_begin_token(Converter)(tmp_path)
    if settings.get("add_bos_token"):
        model.set_vocab()
        assert model.is_written
    else:
        with pytest.raises(Refused, match="Set 'add_bos_token' to true"):
            model.set_vocab()
