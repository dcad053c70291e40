"""Bindings to llguidance's C interface, which the shared object of its wheel exports.

The C interface does not need the GIL. The wheel's Python class holds it for seconds while it reads a vocabulary, which
stops the streams of all models, and never frees what it has read (docs/performance.md).

Source: llguidance.h, as of 1.9.1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

import llguidance
import llguidance._lib

# The layout of the structs cannot be queried, and a proposed change removes the interface from the wheels
# (https://github.com/guidance-ai/llguidance/pull/385). Before a change of the version, compare the header, and run
# tests/unit/engine/guidance.
VERSION = "1.9.1"


def require(version: str) -> None:
    """Check the version of llguidance.

    Raises:
        ImportError: ``version`` is not ``VERSION``.
    """
    if version != VERSION:
        raise ImportError(
            f"Modelyard needs llguidance {VERSION}, not {version}: it calls functions that are not the same in each "
            f"version. Install it: pip install llguidance=={VERSION}"
        )


require(llguidance.__version__)

# size_t tokenize(user_data, bytes, bytes_len, output_tokens, output_tokens_len): returns the number of tokens, of which
# it writes at most output_tokens_len. Runs on any thread, and takes the GIL.
Tokenize = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t)


class TokenizerInit(ctypes.Structure):
    """LlgTokenizerInitV2. The library copies everything that it points to, except the function."""

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


def _declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


# Long functions release the GIL. Short ones keep it, because taking it again may need 5 ms while other threads compute.
_long = ctypes.CDLL(llguidance._lib.__file__)
_short = ctypes.PyDLL(llguidance._lib.__file__)

# Returns NULL after an error, which it writes to the given buffer of the given length.
new_tokenizer = _declare(
    _long, "llg_new_tokenizer_v2", c_void_p, POINTER(TokenizerInit), POINTER(ctypes.c_char), c_size_t
)
free_tokenizer = _declare(_long, "llg_free_tokenizer", None, c_void_p)

set_defaults = _declare(_short, "llg_constraint_init_set_defaults", None, POINTER(MatcherInit), c_void_p)

# Takes the kind of the grammar, and the grammar. Never returns NULL.
new_matcher = _declare(_long, "llg_new_matcher", c_void_p, POINTER(MatcherInit), c_char_p, c_char_p)
clone_matcher = _declare(_long, "llg_clone_matcher", c_void_p, c_void_p)
free_matcher = _declare(_long, "llg_free_matcher", None, c_void_p)
# Fills an array of ``mask_size`` bytes. Returns 0, or -1 if the matcher is broken.
compute_mask = _declare(_long, "llg_matcher_compute_mask_into", c_int32, c_void_p, c_void_p, c_size_t)
mask_size = _declare(_short, "llg_matcher_get_mask_byte_size", c_size_t, c_void_p)
# Returns 0, or -1 if the matcher is or becomes broken.
consume_token = _declare(_short, "llg_matcher_consume_token", c_int32, c_void_p, c_uint32)
rollback = _declare(_short, "llg_matcher_rollback", c_int32, c_void_p, c_size_t)
# Returns how many of the given tokens may follow one another; -1 if the matcher is broken.
validate_tokens = _declare(_short, "llg_matcher_validate_tokens", c_int32, c_void_p, POINTER(c_uint32), c_size_t)
is_accepting = _declare(_short, "llg_matcher_is_accepting", c_bool, c_void_p)
is_stopped = _declare(_short, "llg_matcher_is_stopped", c_bool, c_void_p)
# Returns NULL if the matcher is not broken.
get_error = _declare(_short, "llg_matcher_get_error", c_char_p, c_void_p)
