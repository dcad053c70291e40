"""Random changes to a GGUF file that keep its form: what a careless or an evil publisher could write. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from fuzz.gguf_file import Array, GgufFile, Scalar, Tensor, tensor_bytes, text
from fuzz.nasty_texts import nasty_text
from fuzz.pre_tokenizers import PRE_TOKENIZERS
from fuzz.tiny_models import ARCHITECTURES
from modelyard.formats.gguf import constants as gguf

_INTEGER_BITS: Final = {0: (8, False), 1: (8, True), 2: (16, False), 3: (16, True), 4: (32, False), 5: (32, True)}
_INTEGER_BITS |= {10: (64, False), 11: (64, True)}
_FLOATS: Final = (gguf.FLOAT32, 12)
_EVIL_FLOATS: Final = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-5, 0.5, 2.0, 1e9, 3e38, -3e38, math.inf, -math.inf, math.nan)
_MAX_NUMBERS: Final = 600

# Keys that a file may have beside those that it needs, by their type. Source: llama.cpp, LLM_KV_NAMES in
# src/llama-arch.cpp.
_OPTIONAL_NUMBERS: Final = (
    "vocab_size", "embedding_length_out", "features_length", "leading_dense_block_count", "nextn_predict_layers",
    "expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_feed_forward_length",
    "expert_shared_count", "expert_group_count", "expert_group_used_count", "expert_gating_func",
    "expert_group_scale", "experts_per_group", "moe_every_n_layers", "pooling_type", "decoder_block_count",
    "rescale_every_n_layers", "token_shift_count", "interleave_moe_layer_step", "full_attention_interval",
    "attention.key_length", "attention.value_length", "attention.group_norm_groups", "attention.q_lora_rank",
    "attention.kv_lora_rank", "attention.relative_buckets_count", "attention.sliding_window",
    "attention.sliding_window_pattern", "attention.temperature_length", "attention.key_length_mla",
    "attention.value_length_mla", "attention.key_length_swa", "attention.value_length_swa",
    "attention.indexer.head_count", "attention.indexer.key_length", "attention.indexer.top_k",
    "attention.shared_kv_layers", "rope.dimension_count", "rope.dimension_count_swa",
    "rope.scaling.original_context_length", "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size",
    "ssm.time_step_rank", "ssm.group_count", "wkv.head_size", "kda.head_dim", "shortconv.l_cache", "block_size",
    "classifier.pooling_type", "embedding_length_per_layer_input", "n_deepstack_layers", "tensor_data_layout",
)  # fmt: skip
_OPTIONAL_FLOATS: Final = (
    "logit_scale", "attn_logit_softcapping", "router_logit_softcapping", "final_logit_softcapping",
    "residual_scale", "embedding_scale", "expert_weights_scale", "attention.max_alibi_bias", "attention.clamp_kqv",
    "attention.scale", "attention.output_scale", "attention.temperature_scale", "attention.group_norm_epsilon",
    "rope.freq_base", "rope.freq_base_swa", "rope.scale_linear", "rope.scaling.factor", "rope.scaling.attn_factor",
    "rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "swiglu_clamp_exp",
)  # fmt: skip
_OPTIONAL_BOOLS: Final = (
    "use_parallel_residual", "expert_weights_norm", "swin_norm", "attention.causal", "rope.scaling.finetuned",
    "ssm.dt_b_c_rms",
)  # fmt: skip
_OPTIONAL_ARRAYS: Final = (
    "attention.head_count", "attention.head_count_kv", "feed_forward_length", "rope.dimension_sections",
    "attention.sliding_window_pattern", "expert_used_count", "deepstack_mapping", "attention.recurrent_layers",
    "swiglu_clamp_exp",
)  # fmt: skip
_TOKENIZER_NUMBERS: Final = tuple(
    f"tokenizer.ggml.{name}"
    for name in (
        "token_type_count", "bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "unknown_token_id",
        "seperator_token_id", "padding_token_id", "cls_token_id", "mask_token_id", "fim_pre_token_id",
        "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id",
    )
)  # fmt: skip
_TOKENIZER_BOOLS: Final = tuple(
    f"tokenizer.ggml.{name}"
    for name in (
        "add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces",
        "normalizer.lowercase", "normalizer.strip_accents",
    )
)  # fmt: skip
_TOKENIZER_MODELS: Final = (
    "llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "gemma4", "whitespace", "hybriddna", "no_vocab", "none", "zzz",
)  # fmt: skip
_ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope", "zzz")
_OPTIONAL_TENSORS: Final = (
    b"rope_freqs.weight", b"blk.0.rope_factors_long.weight", b"rope_factors_long.weight", b"rope_factors_short.weight",
    b"output.weight", b"output.bias", b"output_norm.bias", b"blk.0.attn_q.bias", b"blk.0.attn_k.bias",
    b"blk.1.attn_v.bias", b"blk.0.attn_output.bias", b"blk.0.ffn_up.bias", b"blk.0.ffn_down.bias",
    b"blk.0.attn_qkv.weight", b"blk.0.attn_q_norm.weight", b"blk.0.attn_k_norm.weight", b"blk.0.ffn_gate_inp.weight",
    b"blk.0.ffn_gate_exps.weight", b"blk.0.attn_sinks.weight", b"cls.output.weight", b"cls.weight", b"cls.bias",
    b"cls.output.bias", b"token_types.weight", b"position_embd.weight", b"token_embd_norm.weight",
    b"blk.0.attn_q.scale", b"blk.0.ffn_up.scale", b"dense_2.weight",
)  # fmt: skip
TEMPLATES: Final = (
    "", "{% if %}", "{{ messages }}", "{{ raise_exception('no') }}", "{{ 9**9**9**9 }}", "{{ 'a' * 10**12 }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for a in range(99999) %}{{ 'a'*100000 }}{% endfor %}", "{{ '{:>3000000000}'.format('x')|length }}",
    "{{ messages[0]['content']['x']['y'] }}", "{{ undefined_function() }}", "\x00{{ messages[0] }}",
    "{% set ns = namespace(a=[]) %}{% for i in range(99999) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a | tojson }}",
    "{{ messages[0]['content'] * 1000 }}", "{{ '\ud800' }}{{ messages[0]['content'] | reverse | string }}",
    "{% include 'x' %}", "{{ strftime_now('%Y' * 1000000) }}", "{{ [1] * 10**10 }}", "{{ range(10**12) | list }}",
)  # fmt: skip

Change = Callable[[random.Random, GgufFile], GgufFile]


def damaged(rng: random.Random, model: GgufFile) -> tuple[GgufFile, list[str]]:
    """The model with one to four changes, and their names."""
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        change = rng.choices(_CHANGES, _WEIGHTS)[0]
        before = model
        model = change(rng, model)
        names.append(f"{change.__name__.strip('_')}{_difference(before, model)}")
    return model, names


def _difference(before: GgufFile, after: GgufFile) -> str:
    """What a change changed, in a few words."""
    keys = [
        f"{key}={_short(after.pairs.get(key))}"
        for key in {**before.pairs, **after.pairs}
        if after.pairs.get(key) is not before.pairs.get(key)
    ]
    old = {tensor.name: tensor for tensor in before.tensors}
    tensors = [
        f"{tensor.name.decode('utf-8', 'replace')[:40]}:{gguf.TENSOR_TYPES[tensor.type].name}{list(tensor.shape)}"
        for tensor in after.tensors
        if old.get(tensor.name) is not tensor
    ]
    return f"({', '.join((keys + tensors)[:2])})"


def _short(value: Scalar | Array | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, Array):
        kind = gguf.value_type_name(value.type)
        return f"{kind}[{len(value.values)}]{list(value.values[:4])!r:.60}"
    return f"{gguf.value_type_name(value.type)} {value.value!r:.60}"


def _evil_integer(rng: random.Random, kind: int, near: int | None = None) -> int:
    bits, is_signed = _INTEGER_BITS[kind]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    choices = [0, 1, 2, 3, rng.randrange(64), 1 << rng.randrange(bits), low, high, high // 2, high - 1]
    if near is not None:
        choices += [near + 1, near - 1, near * 2, near // 2, near * 4, near + 32, near * 3] * 2
    return min(max(rng.choice(choices), low), high)


def _evil_value(rng: random.Random, kind: int, near: Any = None) -> Any:
    if kind in _INTEGER_BITS:
        return _evil_integer(rng, kind, int(near) if isinstance(near, int) else None)
    if kind in _FLOATS:
        if isinstance(near, float) and rng.random() < 0.3:
            return max(min(near * rng.choice((0.5, 2.0, -1.0, 1e6, 1e-6)), 3e38), -3e38)
        return rng.choice(_EVIL_FLOATS)
    if kind == gguf.BOOL:
        return rng.random() < 0.5
    return nasty_text(rng, 200).encode("utf-8", "surrogatepass")


def _key(rng: random.Random, model: GgufFile, kind: type) -> str:
    keys = [key for key, value in model.pairs.items() if isinstance(value, kind) and key != "general.architecture"]
    # Those of the model itself decide the most.
    own = [key for key in keys if key.startswith(f"{model.architecture}.")]
    return rng.choice(own if own and rng.random() < 0.6 else keys)


def _value(rng: random.Random, model: GgufFile) -> GgufFile:
    """Another value of the same type."""
    key = _key(rng, model, Scalar)
    old = model.pairs[key]
    assert isinstance(old, Scalar)
    return model.with_pair(key, Scalar(old.type, _evil_value(rng, old.type, old.value)))


def _retyped(rng: random.Random, model: GgufFile) -> GgufFile:
    """A value of another type, most often the same number."""
    key = _key(rng, model, Scalar)
    old = model.pairs[key]
    assert isinstance(old, Scalar)
    kind = rng.choice((*_INTEGER_BITS, *_FLOATS, gguf.BOOL, gguf.STRING))
    value = _evil_value(rng, kind)
    if kind in _INTEGER_BITS and isinstance(old.value, int) and 0 <= old.value < 128:
        value = old.value
    return model.with_pair(key, Scalar(kind, value))


def _missing(rng: random.Random, model: GgufFile) -> GgufFile:
    return model.with_pair(_key(rng, model, rng.choice((Scalar, Scalar, Array))), None)


def _optional(rng: random.Random, model: GgufFile) -> GgufFile:
    """One of the keys that a file may have."""
    prefix = model.architecture
    match rng.randrange(7):
        case 0 | 1:
            key = f"{prefix}.{rng.choice(_OPTIONAL_NUMBERS)}"
            return model.with_pair(key, Scalar(gguf.UINT32, _evil_integer(rng, gguf.UINT32)))
        case 2:
            key = f"{prefix}.{rng.choice(_OPTIONAL_FLOATS)}"
            return model.with_pair(key, Scalar(gguf.FLOAT32, rng.choice(_EVIL_FLOATS)))
        case 3:
            bools = (*(f"{prefix}.{name}" for name in _OPTIONAL_BOOLS), *_TOKENIZER_BOOLS)
            return model.with_pair(rng.choice(bools), Scalar(gguf.BOOL, rng.random() < 0.5))
        case 4:
            kind = rng.choice((gguf.UINT32, gguf.INT32, gguf.FLOAT32, gguf.BOOL))
            values = tuple(_evil_value(rng, kind) for _ in range(rng.choice((1, 2, 2, 2, 3, 4, 4, 500, 513))))
            return model.with_pair(f"{prefix}.{rng.choice(_OPTIONAL_ARRAYS)}", Array(kind, values))
        case 5:
            number = rng.choice((0, 1, 2, 5, 300, rng.randrange(1 << 32), (1 << 32) - 1))
            return model.with_pair(rng.choice(_TOKENIZER_NUMBERS), Scalar(gguf.UINT32, number))
        case _:
            scaling = text(rng.choice(_ROPE_SCALINGS))
            return model.with_pair(f"{prefix}.rope.scaling.type", scaling)


def _array(rng: random.Random, model: GgufFile) -> GgufFile:
    """An array that is cut, longer, of other elements, or of another length than it says."""
    key = _key(rng, model, Array)
    old = model.pairs[key]
    assert isinstance(old, Array)
    values = list(old.values)
    match rng.randrange(7):
        case 0:
            del values[rng.randrange(len(values) + 1) :]
        case 1:
            values += values[: rng.randrange(1, 50)]
        case 2:
            rng.shuffle(values)
        case 3:
            values = [rng.choice(values)] * len(values) if values else values
        case 4:
            kind = rng.choice((*_INTEGER_BITS, *_FLOATS, gguf.BOOL, gguf.STRING))
            few = [_evil_value(rng, kind) for _ in range(4)]
            return model.with_pair(key, Array(kind, tuple(rng.choice(few) for _ in values[:_MAX_NUMBERS])))
        case 5:
            length = rng.choice((0, 1, len(values) + 1, 1 << 31, (1 << 64) - 1, 1 << 61))
            return model.with_pair(key, replace(old, length=length))
        case _:
            for _ in range(rng.choice((1, 3, 30))):
                if values:
                    place = rng.randrange(len(values))
                    values[place] = _evil_value(rng, old.type, values[place])
    return model.with_pair(key, replace(old, values=tuple(values)))


def _token_texts(rng: random.Random, model: GgufFile) -> GgufFile:
    """Entries of the vocabulary that are odd."""
    key = "tokenizer.ggml.tokens"
    old = model.pairs.get(key)
    if not isinstance(old, Array) or not old.values:
        return model
    values = list(old.values)
    for _ in range(rng.choice((1, 5, 100, len(values)))):
        place = rng.randrange(len(values))
        values[place] = rng.choice((
            b"", b"a", b" ", b"\xff\xfe", b"x" * 3000, b"<0x00>", b"<0xZZ>", b"<|im_end|>", b"</s>", b"\0", b"\\x",
            b"'a'", b"b'a", b"<|", b"##", "▁".encode(), "Ġ".encode(), nasty_text(rng, 40).encode("utf-8", "replace"),
            values[rng.randrange(len(values))],
        ))  # fmt: skip
    return model.with_pair(key, replace(old, values=tuple(values)))


def _token_types(rng: random.Random, model: GgufFile) -> GgufFile:
    """Tokens that are marked as something else: 1 normal, 2 unknown, 3 control, 4 defined, 5 unused, 6 byte."""
    key = "tokenizer.ggml.token_type"
    old = model.pairs.get(key)
    if not isinstance(old, Array) or not old.values:
        return model
    values = list(old.values)
    some = rng.choice(((3,), (4,), (6,), (1,), (5,), (2,), (1, 2, 3, 4, 5, 6), (0, -1, 99, 2**31 - 1, -(2**31))))
    for place in rng.sample(range(len(values)), rng.choice((1, min(20, len(values)), len(values)))):
        values[place] = rng.choice(some)
    return model.with_pair(key, replace(old, values=tuple(values)))


def _merges(rng: random.Random, model: GgufFile) -> GgufFile:
    tokens = model.pairs.get("tokenizer.ggml.tokens")
    known = tokens.values if isinstance(tokens, Array) and tokens.type == gguf.STRING and tokens.values else (b"a",)
    odd = (b"", b" ", b"a", b"a b c", b"  ", b"a ", b" a", b"\xff \xff", b"x" * 2000 + b" y")
    values = tuple(
        rng.choice(odd) if rng.random() < 0.2 else rng.choice(known) + b" " + rng.choice(known)
        for _ in range(rng.choice((0, 1, 50, 2000)))
    )
    return model.with_pair("tokenizer.ggml.merges", Array(gguf.STRING, values))


def _tokenizer(rng: random.Random, model: GgufFile) -> GgufFile:
    if rng.random() < 0.5:
        return model.with_pair("tokenizer.ggml.model", text(rng.choice(_TOKENIZER_MODELS)))
    return model.with_pair("tokenizer.ggml.pre", text(rng.choice((*PRE_TOKENIZERS, "", "zzz"))))


def _charsmap(rng: random.Random, model: GgufFile) -> GgufFile:
    """The table by which SentencePiece's "unigram" rewrites a text before it looks for tokens."""
    size = rng.choice((0, 1, 3, 4, 5, 8, 100, 4096))
    values = [rng.choice((0, 0, 255, rng.randrange(256))) for _ in range(size)]
    if size > 4 and rng.random() < 0.7:
        values[:4] = list((size - 4 - rng.choice((0, 1, 4))).to_bytes(4, "little", signed=True))
    model = model.with_pair("tokenizer.ggml.precompiled_charsmap", Array(rng.choice((0, 0, 4)), tuple(values)))
    return model.with_pair("tokenizer.ggml.model", text("t5")) if rng.random() < 0.8 else model


def _template(rng: random.Random, model: GgufFile) -> GgufFile:
    return model.with_pair("tokenizer.chat_template", text(rng.choice((*TEMPLATES, nasty_text(rng, 300)))))


def _renamed(rng: random.Random, model: GgufFile) -> GgufFile:
    """A file with these numbers and tensors as another architecture."""
    old, new = model.architecture, rng.choice(ARCHITECTURES)
    pairs = {
        (new + key.removeprefix(old) if key.startswith(f"{old}.") else key): value for key, value in model.pairs.items()
    }
    return replace(model, pairs={**pairs, "general.architecture": text(new)})


def _with_tensor(model: GgufFile, place: int, tensor: Tensor | None) -> GgufFile:
    tensors = list(model.tensors)
    tensors[place : place + 1] = [] if tensor is None else [tensor]
    return replace(model, tensors=tuple(tensors))


def _tensor_of(rng: random.Random, model: GgufFile) -> tuple[int, Tensor]:
    place = rng.randrange(len(model.tensors))
    return place, model.tensors[place]


def _no_tensor(rng: random.Random, model: GgufFile) -> GgufFile:
    return _with_tensor(model, rng.randrange(len(model.tensors)), None) if len(model.tensors) > 1 else model


def _more_tensors(rng: random.Random, model: GgufFile) -> GgufFile:
    """A tensor that the architecture may have, of some shape, type and content."""
    name = rng.choice(_OPTIONAL_TENSORS)
    width = model.pairs.get(f"{model.architecture}.embedding_length")
    own = width.value if isinstance(width, Scalar) and isinstance(width.value, int) and 0 < width.value < 4096 else 64
    sizes = (own, own, own // 2, own // 4, own * 2, own * 3, 1, 2, 8, 16, 32, 264)
    shape = tuple(max(1, rng.choice(sizes)) for _ in range(rng.choice((1, 1, 2, 2, 3))))
    kind = rng.choice((0, 0, 0, 0, 1, 8, 26))
    tensor = Tensor(name, shape, kind, rng.randbytes(min(tensor_bytes(shape, kind), 1 << 22)))
    if kind == 0:
        tensor = replace(tensor, content=np.full(tensor_bytes(shape, 0) // 4, 0.1, np.float32).tobytes())
    rest = [one for one in model.tensors if one.name != name]
    rest.insert(rng.randrange(len(rest) + 1), tensor)
    return replace(model, tensors=tuple(rest))


def _tensor_type(rng: random.Random, model: GgufFile) -> GgufFile:
    place, tensor = _tensor_of(rng, model)
    kind = rng.choice(list(gguf.TENSOR_TYPES))
    size = tensor_bytes(tensor.shape, kind)
    if size > 1 << 25:
        return model
    content = bytes(size) if rng.random() < 0.4 else rng.randbytes(size)
    return _with_tensor(model, place, replace(tensor, type=kind, content=content))


def _all_types(rng: random.Random, model: GgufFile) -> GgufFile:
    """All matrices of another type, as a quantised file has them."""
    kind = rng.choice(list(gguf.TENSOR_TYPES))
    block = gguf.TENSOR_TYPES[kind].block_elements
    tensors = [
        replace(tensor, type=kind, content=bytes(tensor_bytes(tensor.shape, kind)))
        if len(tensor.shape) > 1 and tensor.shape[0] % block == 0 and tensor_bytes(tensor.shape, kind) < 1 << 25
        else tensor
        for tensor in model.tensors
    ]
    return replace(model, tensors=tuple(tensors))


def _tensor_shape(rng: random.Random, model: GgufFile) -> GgufFile:
    place, tensor = _tensor_of(rng, model)
    shape = list(tensor.shape)
    match rng.randrange(6):
        case 0:
            shape.reverse()
        case 1:
            shape.append(rng.choice((1, 1, 2)))
        case 2 if len(shape) > 1:
            shape = [math.prod(shape)]
        case 3:
            shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 1 << 31, 1 << 63))
        case 4 if shape[0] % 2 == 0:
            shape = [shape[0] // 2, 2, *shape[1:]]
        case _:
            at = rng.randrange(len(shape))
            shape[at] = max(1, rng.choice((shape[at] * 2, shape[at] // 2, shape[at] + 32, shape[at] - 32)))
    size = tensor_bytes(tuple(shape), tensor.type)
    content = tensor.content if size > 1 << 25 else (tensor.content * (size // max(1, len(tensor.content)) + 1))[:size]
    return _with_tensor(model, place, replace(tensor, shape=tuple(shape), content=content))


def _tensor_name(rng: random.Random, model: GgufFile) -> GgufFile:
    place, tensor = _tensor_of(rng, model)
    name = rng.choice((
        tensor.name.replace(b"blk.0", b"blk.1"), tensor.name.replace(b"weight", b"bias"), tensor.name + b"x",
        rng.choice(_OPTIONAL_TENSORS), rng.choice(model.tensors).name, b"", b"x" * 64, b"blk.99999.x", b"\xff",
    ))  # fmt: skip
    return _with_tensor(model, place, replace(tensor, name=name))


def _tensor_place(rng: random.Random, model: GgufFile) -> GgufFile:
    place, tensor = _tensor_of(rng, model)
    return _with_tensor(model, place, replace(tensor, offset=rng.choice((0, 1, 32, 1 << 20, 1 << 40, (1 << 64) - 32))))


def _tensor_content(rng: random.Random, model: GgufFile) -> GgufFile:
    """Weights that are not finite, zero, huge, or anything."""
    place, tensor = _tensor_of(rng, model)
    size = len(tensor.content)
    if tensor.type == 0:
        values = np.frombuffer(tensor.content, np.float32).copy()
        some = slice(None) if rng.random() < 0.5 or not len(values) else rng.randrange(len(values))
        values[some] = rng.choice((0.0, math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 1e20, -1.0))
        return _with_tensor(model, place, replace(tensor, content=values.tobytes()))
    content = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return _with_tensor(model, place, replace(tensor, content=content))


_CHOICES: Final[tuple[tuple[Change, int], ...]] = (
    (_value, 22),
    (_retyped, 4),
    (_missing, 4),
    (_optional, 24),
    (_array, 8),
    (_token_texts, 6),
    (_token_types, 6),
    (_merges, 3),
    (_tokenizer, 8),
    (_charsmap, 4),
    (_template, 4),
    (_renamed, 4),
    (_no_tensor, 2),
    (_more_tensors, 10),
    (_tensor_type, 8),
    (_all_types, 4),
    (_tensor_shape, 6),
    (_tensor_name, 4),
    (_tensor_place, 1),
    (_tensor_content, 6),
)
_CHANGES: Final = [change for change, _ in _CHOICES]
_WEIGHTS: Final = [weight for _, weight in _CHOICES]
