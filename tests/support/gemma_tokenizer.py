"""Gemma's tokenizer in the files that transformers reads, made of a GGUF file and cut to its first tokens.

The 262,144 tokens of the whole vocabulary would make every tiny model of its family hundreds of megabytes large.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import llama_cpp.llama_cpp as lib

SPECIAL: Final = (
    *("<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>"),
    *("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'),
)
"""Control tokens of Gemma 4, behind the ordinary ones."""

_SPACE: Final = "▁"

# Of the file's tokens, those whose first letters nothing else begins with: pad, eos, bos, unk, mask.
_LEADING: Final = 5

TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<turn|>\n' }}{% endfor %}"
    "{{ '<|turn>model\n' }}"
)


def first_tokens(path: Path, count: int = 6000) -> list[str]:
    """The first tokens of the vocabulary in a GGUF file.

    llama.cpp reads them in a fraction of the time that Python takes for the whole file.
    """
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(bytes(path), params)
    assert model, path
    vocabulary = lib.llama_model_get_vocab(model)
    tokens = [lib.llama_vocab_get_text(vocabulary, index).decode() for index in range(count)]
    lib.llama_model_free(model)
    return tokens


def write_gemma_tokenizer(tokens: Sequence[str], folder: Path) -> int:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``; the number of tokens.

    Args:
        tokens: first ones of Gemma's vocabulary, in order; longer tokens are merges of earlier ones, in the order of
            their ids.
        folder: of the checkpoint.
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    # Single characters stand at the vocabulary's end.
    for character in (*string.printable.strip(), _SPACE, "\n", *SPECIAL):
        vocab.setdefault(character, len(vocab))
    special = [*tokens[:_LEADING], *SPECIAL]
    ordinary = {token for token in vocab if token not in special and not _is_byte(token)}
    merges = [
        [token[:at], token[at:]]
        for token in vocab
        if token in ordinary and len(token) > 1
        for at in range(1, len(token))
        if token[:at] in ordinary and token[at:] in ordinary
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": vocab[token], "content": token, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for token in special
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    settings: dict[str, Any] = {
        "tokenizer_class": "GemmaTokenizer",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "additional_special_tokens": list(SPECIAL),
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), "utf-8")
    return len(vocab)


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
