"""Make a full-precision checkpoint, in the layout of the hub, of the demo model SmolLM2.

    python scripts/checkpoint.py DIRECTORY

No hub can be reached in tests, and the demo weights are quantised: this dequantises them into safetensors, with the
names, the order of rows and the tokenizer that transformers gives the model. Needs the extras ``demo`` and ``convert``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import llama_gguf
import numpy as np
from demo_weights import WeightsUnavailable, prepare

NAME = "SmolLM2-135M-Instruct"
SHARDS = 2

_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def make(weights: Path, folder: Path) -> Path:
    """The folder of the checkpoint, inside ``folder``; made unless it is there.

    Raises:
        WeightsUnavailable: a package of the extra ``convert`` is not installed.
    """
    checkpoint = folder / NAME
    if (checkpoint / "config.json").is_file():
        return checkpoint
    llama_gguf.add_to_path()
    try:
        from gguf_file import GgufFile

        reader = GgufFile(weights)
    except ImportError as error:
        raise WeightsUnavailable(f"{error.name} is not installed. Run: make convert") from error
    checkpoint.mkdir(parents=True, exist_ok=True)
    _write_weights(reader, checkpoint)
    _write_tokenizer(reader, checkpoint)
    # Last: what has it is complete.
    partial = checkpoint / ".config.json.partial"
    partial.write_text(json.dumps(_config(reader), indent=2), "utf-8")
    partial.replace(checkpoint / "config.json")
    return checkpoint


def _field(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


def _config(reader: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "hidden_act": "silu",
        "hidden_size": _field(reader, "llama.embedding_length"),
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "num_attention_heads": _field(reader, "llama.attention.head_count"),
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "max_position_embeddings": _field(reader, "llama.context_length"),
        "rms_norm_eps": _field(reader, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": _field(reader, "llama.rope.freq_base"),
        "rope_parameters": {"rope_type": "default", "rope_theta": _field(reader, "llama.rope.freq_base")},
        "vocab_size": _field(reader, "llama.vocab_size"),
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": True,
    }


def _write_weights(reader: Any, checkpoint: Path) -> None:
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    heads = {
        "attn_q": _field(reader, "llama.attention.head_count"),
        "attn_k": _field(reader, "llama.attention.head_count_kv"),
    }
    shards: list[dict[str, np.ndarray]] = [{} for _ in range(SHARDS)]
    for index, tensor in enumerate(reader.tensors):
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = _OUTER_NAMES.get(tensor.name)
        if name is None:
            _, layer, part, kind = tensor.name.split(".")
            name = f"model.layers.{layer}.{_LAYER_NAMES[part]}.{kind}"
            if part in heads:
                values = _in_order_of_transformers(values, heads[part])
        shards[index * SHARDS // len(reader.tensors)][name] = np.ascontiguousarray(values.astype(np.float16))
    index_of = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        save_file(shard, checkpoint / file, metadata={"format": "pt"})
        index_of |= dict.fromkeys(shard, file)
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index_of}))


def _in_order_of_transformers(values: np.ndarray, heads: int) -> np.ndarray:
    """Undo what the converter does to the rows of queries and keys.

    Source: llama.cpp, LlamaModel.permute in conversion/llama.py: GGUF rotates neighbours, transformers the two halves
    of a head.
    """
    rows, width = values.shape
    return values.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _write_tokenizer(reader: Any, checkpoint: Path) -> None:
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    types: list[int] = _field(reader, "tokenizer.ggml.token_type")
    special = [index for index, kind in enumerate(types) if kind == 3]
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": tokens[index],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in special
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in _field(reader, "tokenizer.ggml.merges")],
        },
    }

    def token(kind: str) -> str:
        return tokens[_field(reader, f"tokenizer.ggml.{kind}_token_id")]

    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "unk_token": token("unknown"),
        "pad_token": token("padding"),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "chat_template": _field(reader, "tokenizer.chat_template"),
    }
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), "utf-8")


def main(arguments: list[str]) -> int:
    """Run as a command; the exit status."""
    if len(arguments) != 1:
        print("usage: checkpoint.py DIRECTORY", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        print(make(prepare(folder)["smollm2"], folder))
    except WeightsUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
