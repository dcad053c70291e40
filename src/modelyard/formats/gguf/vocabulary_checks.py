"""Checks of tokenizers: refuses those on which llama.cpp would abort the process, when it loads them or tokenises.

Source: llama.cpp as of b11739, src/llama-vocab.cpp: impl::load, impl::tokenize, byte_to_token, token_to_byte,
find_bpe_rank and llm_tokenizer_rwkv_session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelyard.formats.gguf.parse import TOKENS_KEY, Fail, Pairs
from modelyard.formats.gguf.values import GgufArray, Value

# tokenizer.ggml.model -> llama.cpp's default ids of the begin, end and separator tokens.
_DEFAULT_SPECIALS: Final[Mapping[str, Mapping[str, int]]] = {
    "llama": {"bos": 1, "eos": 2},
    "plamo2": {"bos": 1, "eos": 2},
    "bert": {"bos": 101, "seperator": 102},
    "gpt2": {"bos": 11, "eos": 11},
    "hybriddna": {"bos": 11, "eos": 11},
    "whitespace": {"bos": 11, "eos": 11},
    "t5": {"eos": 1},
}
_BYTE_PAIR_MODELS: Final = ("gpt2", "hybriddna", "whitespace")
_BOS_PRE_TOKENIZERS: Final = frozenset({
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "tekken",
    "chameleon",
})  # fmt: skip
_FORCED_BOS_PRE_TOKENIZERS: Final = ("gemma4", "granite-embed-multi-311m")
# With these models the pre-tokenizer "whitespace" asserts that a text has no blanks, although it keeps them. The model
# "whitespace" drops them before.
_MODELS_THAT_KEEP_BLANKS: Final = ("gpt2", "hybriddna")
_NO_TOKENIZER: Final = ("no_vocab", "none")


def check_vocabulary(pairs: Pairs, fail: Fail) -> None:
    """Refuse a tokenizer that is missing, or on which llama.cpp would abort the process.

    Raises:
        UnusableModel: through ``fail``.
    """
    values = pairs.values
    model = values.get("tokenizer.ggml.model")
    if not isinstance(model, str) or model in _NO_TOKENIZER:
        fail("The file has no tokenizer ('tokenizer.ggml.model')", "Download a file of the model that has one.")
    tokens = values.get(TOKENS_KEY)
    if not isinstance(tokens, GgufArray) or tokens.type != "str" or tokens.length == 0:
        fail(f"The file has no vocabulary: '{TOKENS_KEY}' must be an array of strings")
    for key, allowed in (("tokenizer.ggml.scores", ("f32", "i32")), ("tokenizer.ggml.token_type", ("i32",))):
        array = values.get(key)
        if array is None:
            continue
        if not isinstance(array, GgufArray) or array.type not in allowed:
            fail(f"'{key}' must be an array of {' or '.join(allowed)}")
        # A longer array is harmless: llama.cpp reads as many entries as there are tokens.
        if array.length < tokens.length:
            fail(f"'{key}' has {array.length} entries for {tokens.length} tokens")
    if model in _MODELS_THAT_KEEP_BLANKS and values.get("tokenizer.ggml.pre") == "whitespace":
        fail(f"The pre-tokenizer 'whitespace' with the tokenizer '{model}' ends llama.cpp's process on two blanks")
    _check_bytes(pairs, model, fail)
    _check_special_tokens(values, model, tokens.length, fail)


def _check_bytes(pairs: Pairs, model: str, fail: Fail) -> None:
    if model == "llama":
        # Text without a token is split into byte tokens, and llama_tokenize throws if one is missing.
        for byte in range(256):
            if b"<0x%02X>" % byte not in pairs.tokens and bytes([byte]) not in pairs.tokens:
                fail(f"The vocabulary lacks the token <0x{byte:02X}>: the tokenizer would end the process without it")
    if model == "rwkv":
        # If a text matches the start of tokens but no whole one, the tokenizer starts over for ever. The file has its
        # tokens as Python literals of bytes.
        for byte in range(256):
            spellings = {bytes([byte]), rb"\x%02x" % byte, repr(bytes([byte]))[2:-1].encode()} - {b"\\"}
            if spellings.isdisjoint(pairs.tokens):
                fail(f"The vocabulary lacks the byte 0x{byte:02X}: the tokenizer might never end without it")
    if model == "bert" and pairs.has_byte_tokens:
        fail("'tokenizer.ggml.token_type' marks tokens as bytes, which a WordPiece vocabulary cannot have")


def _check_special_tokens(values: Mapping[str, Value], model: str, vocabulary: int, fail: Fail) -> None:
    """Check that the tokens around a prompt exist, because llama.cpp aborts when it adds a missing one.

    An id out of range is no error by itself, because llama.cpp then uses the tokenizer's default.
    """
    pre = values.get("tokenizer.ggml.pre")
    byte_pairs = model in _BYTE_PAIR_MODELS
    bos_forced = model in ("bert", "gemma4") or (byte_pairs and pre in _FORCED_BOS_PRE_TOKENIZERS)
    bos_default = model == "llama" or (byte_pairs and pre in _BOS_PRE_TOKENIZERS)
    added = {
        "bos": bos_forced or values.get("tokenizer.ggml.add_bos_token", bos_default),
        "eos": values.get("tokenizer.ggml.add_eos_token", model == "t5"),
        "seperator": model == "bert",  # the key is misspelt in the format itself
    }
    for name, is_added in added.items():
        key = f"tokenizer.ggml.{name}_token_id"
        own = values.get(key)
        is_valid = isinstance(own, int) and 0 <= own < vocabulary
        fallback = _DEFAULT_SPECIALS.get(model, {}).get(name, vocabulary)
        if is_added and not is_valid and fallback >= vocabulary:
            problem = "is missing" if own is None else f"is {own}"
            fail(f"'{key}' {problem}, but the tokenizer puts that token around every prompt ({vocabulary} tokens)")
