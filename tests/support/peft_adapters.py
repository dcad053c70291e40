"""LoRA adapters in the layout of PEFT, and what PEFT computes with them on the model of ``write_drawn_model``.

Control vectors too, which transformers adds behind the layers of such a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from modelyard.formats.gguf.read import read_header

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 264,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
"""The configuration of that model as a checkpoint."""

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    **{f"attn_{short}.weight": f"self_attn.{short}_proj.weight" for short in "qkv"},
    "attn_output.weight": "self_attn.o_proj.weight",
    **{f"ffn_{name}.weight": f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}
SHAPES = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32)}


def write_peft(
    folder: Path,
    *,
    base: Path | str = "",
    targets: Sequence[str] = ("self_attn.q_proj", "self_attn.v_proj"),
    rank: int = 4,
    seed: int = 0,
    tensors: Mapping[str, np.ndarray] | None = None,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    layer: str = "model.layers.0",
    **config: Any,
) -> Path:
    """An adapter of that model with drawn matrices, as PEFT saves it.

    Args:
        folder: to write.
        base: the base model, by its name or its folder, into which its configuration is written.
        tensors: further tensors, or others in place of drawn ones.
        shapes: rows and columns of the weights that are changed, where they are not 32 and 32.
        layer: the name of the layer that is changed.
        config: further keys of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn, matrices = np.random.default_rng(seed), {}
    for target in targets:
        rows, columns = shapes.get(target, (32, 32))
        module = f"base_model.model.{layer}.{target}"
        own = config.get("rank_pattern", {}).get(target.split(".")[-1], rank)
        matrices[f"{module}.lora_A.weight"] = drawn.normal(0, 0.3, (own, columns)).astype(np.float32)
        matrices[f"{module}.lora_B.weight"] = drawn.normal(0, 0.3, (rows, own)).astype(np.float32)
    if isinstance(base, Path):
        base.mkdir(parents=True, exist_ok=True)
        (base / "config.json").write_text(json.dumps(CONFIG))
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank}
    settings |= {"lora_alpha": 8, "target_modules": [target.split(".")[-1] for target in targets], **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({**matrices, **(tensors or {})}, folder / "adapter_model.safetensors")
    return folder


def peft_logprobs(
    base: Path, adapters: Mapping[str, Path], uses: Sequence[Mapping[str, float]], prompt: Sequence[int]
) -> list[list[float]]:
    """The log-probabilities of all tokens after a prompt, as PEFT computes them, with adapters by name at scales.

    Args:
        base: a file of ``write_drawn_model``, or what it was quantised to in Q8_0.
        adapters: the adapters by name.
        uses: for each answer, the scales of adapters by name; {} for the model alone.
    """
    import torch
    from peft import PeftModel

    with torch.inference_mode():
        model = _model(base)
        first, *rest = adapters
        adapted = PeftModel.from_pretrained(model, str(adapters[first]), adapter_name=first)
        for name in rest:
            adapted.load_adapter(str(adapters[name]), adapter_name=name)
        layers = [module for module in adapted.modules() if isinstance(getattr(module, "scaling", None), dict)]
        configured = [dict(layer.scaling) for layer in layers]
        found = []
        for use in uses:
            for layer, scaling in zip(layers, configured, strict=True):
                layer.scaling.update({name: factor * use.get(name, 0.0) for name, factor in scaling.items()})
            adapted.base_model.set_adapter(list(adapters))
            logits = adapted(torch.tensor([list(prompt)])).logits[0, -1].double()
            found.append(torch.log_softmax(logits, -1).tolist())
        return found


def steered_logprobs(base: Path, directions: Mapping[int, Sequence[float]], prompt: Sequence[int]) -> list[float]:
    """The log-probabilities of all tokens after a prompt, where each direction is added to what its layer computes."""
    import torch

    with torch.inference_mode():
        model = _model(base)
        for layer, direction in directions.items():
            added = torch.tensor(direction, dtype=torch.float32)
            model.model.layers[layer].register_forward_hook(lambda _module, _inputs, out, added=added: out + added)
        return torch.log_softmax(model(torch.tensor([list(prompt)])).logits[0, -1].double(), -1).tolist()


def _model(base: Path) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    layers = read_header(base).block_count
    model = LlamaForCausalLM(LlamaConfig(**{**CONFIG, "num_hidden_layers": layers})).float().eval()
    weights = {name: torch.from_numpy(each) for name, each in _checkpoint(base).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    return model


def _checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The weights of a GGUF file under the names of a checkpoint, with the rows of queries and keys in its order.

    Source: llama.cpp, conversion/llama.py, LlamaModel.permute, which this reverses.
    """
    header, raw = read_header(path), path.read_bytes()
    # The data begins at a multiple of 32 bytes, as each tensor does, and ends with the last tensor.
    size = max(tensor.offset + -(-tensor.size_bytes // 32) * 32 for tensor in header.tensors)
    weights, start = {}, len(raw) - size
    for tensor in header.tensors:
        at = start + tensor.offset
        numbers = _decoded(raw[at : at + tensor.size_bytes], tensor.type).reshape(tensor.shape[::-1])
        block, short = tensor.name.split(".", 2)[1:] if tensor.name.startswith("blk.") else ("", tensor.name)
        name = _NAMES[short]
        if short in ("attn_q.weight", "attn_k.weight"):
            rows, columns = numbers.shape
            numbers = numbers.reshape(rows // 16, 8, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        weights[f"model.layers.{block}.{name}" if block else name] = numbers.copy()
    return weights


def _decoded(data: bytes, kind: str) -> np.ndarray:
    """The numbers of a tensor. Source: ggml, ggml-common.h, block_q8_0."""
    if kind == "F32":
        return np.frombuffer(data, "<f4")
    assert kind == "Q8_0"
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("codes", "i1", 32)]))
    return blocks["scale"].astype(np.float32)[:, None] * blocks["codes"]
