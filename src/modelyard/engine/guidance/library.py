"""The one use of llguidance's C interface, which the shared object of its wheel exports.

It is used because it needs no lock of Python's: the class of the wheel that reads a vocabulary holds it for seconds, in
which every stream of every model stands still, and keeps what it read for ever (docs/performance.md).

Source: llguidance.h, as of 1.9.1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

import llguidance
import llguidance._lib

# Nothing in the interface tells how its structs are laid out, and a change proposed upstream takes it out of the wheels
# (https://github.com/guidance-ai/llguidance/pull/385): another version is to be compared first, with its header and by
# tests/unit/engine/guidance.
VERSION = "1.9.1"


def require(version: str) -> None:
    """Go no further with another version.

    Raises:
        ImportError: it is another one.
    """
    if version != VERSION:
        raise ImportError(
            f"Modelyard needs llguidance {VERSION}, not {version}: it calls functions that are not the same in each "
            f"version. Install it: pip install llguidance=={VERSION}"
        )


require(llguidance.__version__)

# size_t tokenize(user_data, bytes, bytes_len, output_tokens, output_tokens_len): how many tokens there are, of which
# no more than output_tokens_len are to be written. Runs on any thread, and takes Python's lock.
Tokenize = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t)


class TokenizerInit(ctypes.Structure):
    """LlgTokenizerInitV2. All that it points to is copied, but for the function."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("vocab_size", c_uint32),
        ("tok_eos", c_uint32),
        ("token_lens", c_void_p),
        ("token_bytes", c_char_p),
        ("tokenizer_json", c_char_p),
        ("tokenize_assumes_string", c_bool),
        ("tokenize_fn", Tokenize),
        ("use_approximate_greedy_tokenize_fn", c_bool),
        ("tokenize_user_data", c_void_p),
        ("slices", c_void_p),
        ("tok_eos_extra", c_void_p),
        ("tok_eos_extra_count", c_uint32),
    )


class ParserLimits(ctypes.Structure):
    """LlgParserLimits."""

    _fields_ = (
        ("max_items_in_row", c_size_t),
        ("initial_lexer_fuel", c_uint64),
        ("step_lexer_fuel", c_uint64),
        ("step_max_items", c_size_t),
        ("max_lexer_states", c_size_t),
        ("max_grammar_size", c_size_t),
        ("precompute_large_lexemes", c_bool),
        ("verbose_errors", c_bool),
    )


class MatcherInit(ctypes.Structure):
    """LlgConstraintInit, as ``set_defaults`` fills it."""

    _fields_ = (
        ("tokenizer", c_void_p),
        ("log_buffer_level", c_uint32),
        ("log_stderr_level", c_uint32),
        ("ff_tokens_ok", c_bool),
        ("backtrack_ok", c_bool),
        ("limits", ParserLimits),
    )


def _declared(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


# What takes long lets go of Python's lock. What is short keeps it: to take it again may take 5 ms, where other threads
# compute.
_long = ctypes.CDLL(llguidance._lib.__file__)
_short = ctypes.PyDLL(llguidance._lib.__file__)

# Of a tokenizer: NULL where there is an error, which is written to the buffer that is given, and its length.
new_tokenizer = _declared(
    _long, "llg_new_tokenizer_v2", c_void_p, POINTER(TokenizerInit), POINTER(ctypes.c_char), c_size_t
)
free_tokenizer = _declared(_long, "llg_free_tokenizer", None, c_void_p)

set_defaults = _declared(_short, "llg_constraint_init_set_defaults", None, POINTER(MatcherInit), c_void_p)

# Of a matcher: never NULL. Its kind, and the grammar.
new_matcher = _declared(_long, "llg_new_matcher", c_void_p, POINTER(MatcherInit), c_char_p, c_char_p)
free_matcher = _declared(_long, "llg_free_matcher", None, c_void_p)
# 0, or -1 where it is broken. The array has as many bytes as ``mask_size`` says.
compute_mask = _declared(_long, "llg_matcher_compute_mask_into", c_int32, c_void_p, c_void_p, c_size_t)
mask_size = _declared(_short, "llg_matcher_get_mask_byte_size", c_size_t, c_void_p)
# 0, or -1 where it is broken, or breaks.
consume_token = _declared(_short, "llg_matcher_consume_token", c_int32, c_void_p, c_uint32)
rollback = _declared(_short, "llg_matcher_rollback", c_int32, c_void_p, c_size_t)
is_stopped = _declared(_short, "llg_matcher_is_stopped", c_bool, c_void_p)
# NULL where it is not broken.
get_error = _declared(_short, "llg_matcher_get_error", c_char_p, c_void_p)
