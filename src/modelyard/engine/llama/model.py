"""A model and its vocabulary.

Hot path: ``Model.piece`` runs once a token.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Container, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

from modelyard.engine.guidance.vocabulary import Vocabulary
from modelyard.engine.llama.deep_stack import call_on_deep_stack
from modelyard.engine.llama.library import lib
from modelyard.engine.llama.long_runs import has_long_run, uncommon_characters
from modelyard.engine.llama.special_tokens import SpecialToken, special_tokens
from modelyard.engine.llama.weights import Weights
from modelyard.protocol.prompts import Sampling

# Limit of bytes that are tokenised on the caller's stack, which has 512 KB at the least. Pre-tokenizers take 330 to 400
# bytes of stack per character of a match.
SHALLOW_BYTES: Final = 1024
STACK_BYTES: Final = 1 << 20
STACK_BYTES_OF_BYTE: Final = 512
# Up to this length no text takes more than a tenth of a second.
QUICK_BYTES: Final = 8192
# For each special token that it finds, llama.cpp goes over all parts of the text from the first: 20,000 of them take
# 0.8 to 1.9 s, and ten times as many a hundred times that.
MAX_SPECIALS: Final = 4000
# Beyond this length the stack alone may take half a gigabyte.
MAX_BYTES_HERE: Final = 1 << 20
# A vocabulary of SentencePiece writes a character that it lacks as its bytes, and llama.cpp copies all tokens so far
# for each: 0.08 s for 20,000 such characters, 0.33 s for 40,000, 2.3 s for 80,000. Source: output.reserve in
# llm_tokenizer_spm_session::resegment, src/llama-vocab.cpp.
MAX_UNCOMMON: Final = 30_000
ASCII: Final = "".join(map(chr, range(1, 128)))


class InfillTokens(NamedTuple):
    """The tokens that mark a gap in a text, and other files of its project.

    Attributes:
        prefix, suffix, middle: before the text with the gap, before the text behind the gap, and before its filling.
        repository, file: before the name of the project, and before that of each file; -1 where there is none.
    """

    prefix: int
    suffix: int
    middle: int
    repository: int = -1
    file: int = -1


class TokenizeElsewhere(Protocol):
    """See ``modelyard.engine.input.tokenizer_process.TokenizerProcesses``."""

    def __call__(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of UTF-8."""


class Model:
    """One engine's view of its weights and their vocabulary.

    Args:
        weights: the loaded weights.
        tokenize_elsewhere: tokenises texts that may take long; None: they are tokenised in this process.
    """

    def __init__(self, weights: Weights, tokenize_elsewhere: TokenizeElsewhere | None = None) -> None:
        self.pointer = weights.pointer
        self.adapter_lock = weights.adapter_lock
        self._tokenize_elsewhere = tokenize_elsewhere
        self._vocab = lib.llama_model_get_vocab(self.pointer)
        self._pieces: dict[int, bytes] = {}
        self._visible_pieces: dict[int, bytes] = {}
        self._piece_buffer = ctypes.create_string_buffer(512)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self._vocab))
        self.layer_count = int(lib.llama_model_n_layer(self.pointer))
        # Floats that a layer computes of each token.
        self.width = int(lib.llama_model_n_embd(self.pointer))
        self.trained_context = int(lib.llama_model_n_ctx_train(self.pointer))
        self.size_bytes = int(lib.llama_model_size(self.pointer))
        self.allocated_bytes = weights.allocated_bytes
        self.placement = weights.placement
        self.is_on_devices = weights.placement.is_on_devices(self.layer_count)
        self.device_bytes = weights.device_bytes
        self.mapped_bytes = weights.mapped_bytes
        # Window of layers with a sliding window, in tokens; 0 where all layers see everything.
        self.window = int(lib.llama_model_n_swa(self.pointer))
        # A recurrent state holds the whole past in one place: it cannot be cut back to an earlier token.
        self.can_trim = not (lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(self.pointer))
        # Limit of positions where they are learned (GPT-2): llama.cpp aborts beyond them. Without a rotation positions
        # are learned, or ALiBi's, which are of little use beyond the trained context either.
        is_learned = int(lib.llama_model_rope_type(self.pointer)) == lib.LLAMA_ROPE_TYPE_NONE and self.can_trim
        self.positions = self.trained_context if is_learned else None
        self.end_tokens = weights.end_tokens
        # Floats of a text's vector, and of a ranking's scores.
        self.dimensions = int(lib.llama_model_n_embd_out(self.pointer))
        self.scores = int(lib.llama_model_n_cls_out(self.pointer))
        # The encoder of a T5 has a KV cache, but is computed as other encoders are.
        self.is_encoder_with_memory = bool(
            lib.llama_model_has_encoder(self.pointer) and not lib.llama_model_has_decoder(self.pointer)
        )

    @property
    def pooling(self) -> int:
        """The pooling that the file declares, by enum llama_pooling_type of llama.h; 0 for none."""
        return int(self.architecture_number("pooling_type") or 0)

    @property
    def is_causal(self) -> bool:
        """Whether no token sees those behind it, as far as the file declares it, which is enough for most encoders."""
        return self.metadata(f"{self.metadata('general.architecture')}.attention.causal") != "false"

    def architecture_number(self, suffix: str) -> float | None:
        """Return a number of the GGUF header, by its key without the architecture; None where it does not exist."""
        value = self.metadata(f"{self.metadata('general.architecture')}.{suffix}")
        return None if value is None else float(value)

    def metadata(self, key: str) -> str | None:
        """Return a scalar of the GGUF header, as llama.cpp prints it; None where it does not exist."""
        buffer = ctypes.create_string_buffer(256)
        length = lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def chat_template(self) -> str | None:
        """Return the chat template in the file, as Jinja source; None where it has none."""
        source = lib.llama_model_chat_template(self.pointer, None)
        return source.decode("utf-8", "replace") if source else None

    def begin_token(self) -> str:
        """Return the text of the token that begins a sequence; "" where the vocabulary has none."""
        return self._special(lib.llama_vocab_bos(self._vocab))

    def end_token(self) -> str:
        """Return the text of the token that ends a sequence; "" where the vocabulary has none."""
        return self._special(lib.llama_vocab_eos(self._vocab))

    def infill_tokens(self) -> InfillTokens | None:
        """Return the tokens that mark a gap in a text; None where the vocabulary has none."""
        gap = (lib.llama_vocab_fim_pre, lib.llama_vocab_fim_suf, lib.llama_vocab_fim_mid)
        project = (lib.llama_vocab_fim_rep, lib.llama_vocab_fim_sep)
        found = InfillTokens(*(int(token(self._vocab)) for token in (*gap, *project)))
        return None if min(found[:3]) < 0 else found

    def control_token(self, text: str) -> int | None:
        """Return the control token with exactly this text; None where the vocabulary has none."""
        tokens = self.tokenize(text, add_special=False)
        if len(tokens) != 1 or not 0 <= tokens[0] < self.vocab_size:
            return None
        return tokens[0] if self.is_control(tokens[0]) and self.visible_piece(tokens[0]) == text.encode() else None

    def is_control(self, token: int) -> bool:
        """Whether a token is a control token, which is not text."""
        return bool(lib.llama_vocab_get_attr(self._vocab, token) & lib.LLAMA_TOKEN_ATTR_CONTROL)

    def control_text(self, token: int) -> str:
        """Return the text that stands for a control token, or for the unknown one; "" for all others."""
        no_text = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        is_text = not 0 <= token < self.vocab_size or not lib.llama_vocab_get_attr(self._vocab, token) & no_text
        return "" if is_text else self._special(token)

    def begin_tokens(self) -> list[int]:
        """Return what the vocabulary puts before a text: its begin token, or nothing."""
        begin = int(lib.llama_vocab_bos(self._vocab))
        # Some tokenizers put nothing there, whatever the vocabulary declares.
        adds = lib.llama_vocab_get_add_bos(self._vocab) and self.tokenize("", add_special=True)[:1] == [begin]
        return [begin] if adds else []

    def special_tokens(self) -> tuple[SpecialToken, ...]:
        """Return the tokens that are looked for in a text before the rest of it is tokenised, in that order."""
        return self._special_tokens

    def pair_tokens(self) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens before the first of two texts that the model compares, between them, and behind the second.

        Where no token ends a text, the token that separates them also ends the second, as in BERT.
        """
        begin, end, separator = map(
            int,
            (
                lib.llama_vocab_bos(self._vocab) if lib.llama_vocab_get_add_bos(self._vocab) else -1,
                lib.llama_vocab_eos(self._vocab) if lib.llama_vocab_get_add_eos(self._vocab) else -1,
                lib.llama_vocab_sep(self._vocab) if lib.llama_vocab_get_add_sep(self._vocab) else -1,
            ),
        )
        return (
            [begin] if begin >= 0 else [],
            [token for token in (end, separator) if token >= 0],
            [end] if end >= 0 else [separator] if separator >= 0 else [],
        )

    def ranking_template(self) -> str | None:
        """Return the template of a reranker's query and document; None: the file has none."""
        source = lib.llama_model_chat_template(self.pointer, b"rerank")
        return source.decode("utf-8", "replace") if source else None

    def _special(self, token: int) -> str:
        return lib.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    def vocabulary_digest(self) -> str:
        """Return a digest that is equal for models with the same tokens, text by text."""
        digest = hashlib.blake2b(digest_size=16)
        for token in range(self.vocab_size):
            digest.update(lib.llama_vocab_get_text(self._vocab, token) + b"\0")
        return digest.hexdigest()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Return the token ids of ``text``, in which spelt-out special tokens count as such. Runs on any thread.

        add_special adds the begin token, and whatever else the model expects, around the text. For parts that the
        vocabulary has no token for, tokenizers without an unknown token yield ids outside of it, which nothing can
        compute.
        """
        raw = text.encode("utf-8", "replace")
        return self._tokenize(text, raw, add_special=add_special, parse_special=parse_special)

    def tokenize_plain(self, text: bytes) -> list[int]:
        """Return the token ids of UTF-8 without special tokens, omitting what has no token. Runs on any thread."""
        tokens = self._tokenize(text.decode("utf-8", "replace"), text, add_special=False, parse_special=False)
        return [token for token in tokens if 0 <= token < self.vocab_size]

    def _has_many_specials(self, text: str) -> bool:
        """Whether a text may contain so many special tokens that finding them takes long."""
        return sum(1 for _ in self._special_beginnings.finditer(text)) > MAX_SPECIALS

    @cached_property
    def _special_beginnings(self) -> re.Pattern[str]:
        """Matches the first two characters of special tokens."""
        texts = {token.text[:2] for token in self._special_tokens}
        return re.compile("|".join(map(re.escape, sorted(texts))) or r"\Z(?!)")

    @cached_property
    def _special_tokens(self) -> tuple[SpecialToken, ...]:
        return special_tokens(self._vocab, self.vocab_size)

    @cached_property
    def _spells_bytes(self) -> bool:
        """Whether characters that the vocabulary lacks become one token for each of their bytes."""
        return int(lib.llama_vocab_type(self._vocab)) == int(lib.LLAMA_VOCAB_TYPE_SPM)

    @cached_property
    def _lacking_ascii(self) -> str:
        """The characters of ASCII that become bytes, for a tokenizer that spells them: ten milliseconds at the most."""

        def is_byte(token: int) -> bool:
            return bool(lib.llama_vocab_get_attr(self._vocab, token) & lib.LLAMA_TOKEN_ATTR_BYTE)

        tokens = ((each, self._tokens(each.encode(), add_special=False, parse_special=False)) for each in ASCII)
        return "".join(each for each, ids in tokens if ids and is_byte(ids[-1]))

    @cached_property
    def longest_token(self) -> int | None:
        """Limit of bytes of UTF-8 that one token can stand for; None where there is none. Takes 0.4 us per token.

        Tokenizers of words and of unigrams have one token for anything unknown, however long it is.
        """
        if int(lib.llama_vocab_type(self._vocab)) not in (lib.LLAMA_VOCAB_TYPE_SPM, lib.LLAMA_VOCAB_TYPE_BPE):
            return None
        return max(
            (len(lib.llama_vocab_get_text(self._vocab, token)) for token in range(self.vocab_size)), default=None
        )

    def _tokenize(self, text: str, raw: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        if (
            self._tokenize_elsewhere is not None
            and len(raw) > QUICK_BYTES
            and (
                len(raw) > MAX_BYTES_HERE
                or has_long_run(text)
                or self._has_many_specials(text)
                or (self._spells_bytes and uncommon_characters(text, self._lacking_ascii) > MAX_UNCOMMON)
            )
        ):
            return self._tokenize_elsewhere(raw, add_special=add_special, parse_special=parse_special)
        return self.tokenize_here(raw, add_special=add_special, parse_special=parse_special)

    def tokenize_here(self, raw: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of UTF-8, however long that takes. Runs on any thread.

        Raises:
            MemoryError: there is no memory for the stack that the text may need.
        """
        if len(raw) <= SHALLOW_BYTES:
            return self._tokens(raw, add_special=add_special, parse_special=parse_special)
        return call_on_deep_stack(
            lambda: self._tokens(raw, add_special=add_special, parse_special=parse_special),
            STACK_BYTES + STACK_BYTES_OF_BYTE * len(raw),
        )

    def _tokens(self, raw: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        capacity = len(raw) + 8
        tokens = (lib.llama_token * capacity)()
        count = lib.llama_tokenize(self._vocab, raw, len(raw), tokens, capacity, add_special, parse_special)
        if count < 0:
            tokens = (lib.llama_token * -count)()
            count = lib.llama_tokenize(self._vocab, raw, len(raw), tokens, -count, add_special, parse_special)
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; b"" for special tokens, which are not text."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = _read_piece(self._vocab, token, self._piece_buffer, shows_special=False)
        return piece

    def visible_piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; for a special token, its name."""
        piece = self._visible_pieces.get(token)
        if piece is None:
            piece = self._visible_pieces[token] = _read_piece(
                self._vocab, token, self._piece_buffer, shows_special=True
            )
        return piece

    def piece_of(self, token: int, visible_specials: Container[int]) -> bytes:
        """Return the bytes that a token adds to an answer in which ``visible_specials`` are text."""
        return self.visible_piece(token) if token in visible_specials else self.piece(token)

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the ``visible_piece`` of each token; b"" for ids below 0. May be called on any thread."""
        buffer = ctypes.create_string_buffer(512)
        return [_read_piece(self._vocab, token, buffer, shows_special=True) if token >= 0 else b"" for token in tokens]

    def dry_sampler(self, sampling: Sampling, context: int) -> Any:
        """Make a DRY sampler, which keeps answers from repeating text; the caller frees it. Runs on any thread."""
        breakers = [breaker.encode() for breaker in sampling.dry_sequence_breakers or ()]
        return lib.llama_sampler_init_dry(
            self._vocab,
            sampling.dry_multiplier,
            sampling.dry_base,
            sampling.dry_allowed_length,
            context if sampling.dry_window is None or sampling.dry_window < 0 else sampling.dry_window,
            (ctypes.c_char_p * len(breakers))(*breakers),
            len(breakers),
        )

    def vocabulary(self) -> Vocabulary:
        """Return all tokens, for grammars; takes 5 µs per token. May be called on any thread."""
        buffer = ctypes.create_string_buffer(512)
        tokens = [_read_piece(self._vocab, token, buffer, shows_special=True) for token in range(self.vocab_size)]
        # Exactly the tokens whose ``piece`` is b"", since what a grammar takes for text must be in the answer. Tokens
        # that a vocabulary defines for its users, such as Qwen's <tool_call>, are text.
        no_text = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        special = [token for token in range(self.vocab_size) if lib.llama_vocab_get_attr(self._vocab, token) & no_text]
        return Vocabulary(tokens, special, self.end_tokens, self.tokenize_plain)


def _read_piece(vocab: Any, token: int, buffer: Any, *, shows_special: bool) -> bytes:
    length = lib.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, shows_special)
    if length < 0:
        buffer = ctypes.create_string_buffer(-length)
        length = lib.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, shows_special)
    return bytes(buffer.raw[:length])
