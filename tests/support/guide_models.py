"""The two models of the guide, in the small: Qwen/Qwen3-4B and google/gemma-4-E4B-it, with random weights.

    python tests/support/guide_models.py OUT SMOLLM2_CHECKPOINT GEMMA3.gguf

Writes safetensors checkpoints as they are published, with the layer kinds of the real ones (sliding and full attention,
shared KV layers, per-layer embeddings, vision and audio towers), real tokenizers, and into ``reference.json`` what
transformers computes of them. A program of its own, since torch is not to be in the process of the tests.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from support.gemma_tokenizer import first_tokens, write_gemma_tokenizer

QWEN: Final = "Qwen/Qwen3-4B"
GEMMA: Final = "google/gemma-4-E4B-it"

TEXT: Final = "The quick brown fox jumps over the lazy dog"
BEFORE, BEHIND = "the quick ", " brown fox"

# transformers scales every image to 280 tokens; one that has so many is scaled neither there nor in llama.cpp.
PICTURE_TOKENS: Final = 280
PICTURE_SIZE: Final = (14 * 48, 20 * 48)
TOP: Final = 20

# By this width llama.cpp knows the models of this family whose image tokens see only those before them.
# Source: mtmd_decode_use_non_causal in tools/mtmd/mtmd.cpp.
_GEMMA_WIDTH: Final = 1536


def picture(seed: int) -> np.ndarray:
    """[height, width, 3]: coloured squares, of any number."""
    width, height = PICTURE_SIZE
    squares = np.random.default_rng(seed).integers(0, 255, (height // 96, width // 96, 3))
    return np.kron(squares, np.ones((96, 96, 1))).astype(np.uint8)


def main(out: Path, smollm2: Path, gemma3: Path) -> None:
    """Write both checkpoints and their reference."""
    reference = {QWEN: _qwen(out / QWEN, smollm2), GEMMA: _gemma(out / GEMMA, gemma3)}
    (out / "reference.json").write_text(json.dumps(reference))


def _qwen(folder: Path, smollm2: Path) -> dict[str, Any]:
    import torch
    import transformers

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(smollm2 / name, folder / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    torch.manual_seed(1)
    model = _randomised(transformers.Qwen3ForCausalLM(config))
    model.save_pretrained(folder)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    return {"text": _likeliest(model, tokenizer, input_ids=torch.tensor([ids]))}


def _gemma(folder: Path, gemma3: Path) -> dict[str, Any]:
    import torch
    import transformers

    folder.mkdir(parents=True)
    vocabulary = write_gemma_tokenizer(first_tokens(gemma3), folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids_of = tokenizer.convert_tokens_to_ids
    layers = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 2
    text = transformers.Gemma4TextConfig(
        vocab_size=vocabulary,
        vocab_size_per_layer_input=vocabulary,
        hidden_size=_GEMMA_WIDTH,
        intermediate_size=256,
        num_hidden_layers=len(layers),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        global_head_dim=64,
        hidden_size_per_layer_input=32,
        num_kv_shared_layers=4,
        layer_types=layers,
        sliding_window=64,
        max_position_embeddings=8192,
        final_logit_softcapping=30.0,
    )
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 16,
    }
    audio = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "output_proj_dims": 64}
    config = transformers.Gemma4Config(
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        image_token_id=ids_of("<|image|>"),
        boi_token_id=ids_of("<|image>"),
        eoi_token_id=ids_of("<image|>"),
        audio_token_id=ids_of("<|audio|>"),
        boa_token_id=ids_of("<|audio>"),
        eoa_token_id=ids_of("<audio|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(2)
    model = _randomised(transformers.Gemma4ForConditionalGeneration(config))
    model.save_pretrained(folder)
    _as_published(folder / "config.json")
    processing = {
        "image_processor_type": "Gemma4ImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "patch_size": 16,
        "rescale_factor": 1 / 255,
        "max_soft_tokens": PICTURE_TOKENS,
        "pooling_kernel_size": 3,
        "image_mean": [0.0] * 3,
        "image_std": [1.0] * 3,
        "do_normalize": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processing))
    pictures = {str(seed): _seen(model, tokenizer, picture(seed), processing) for seed in (1, 2)}
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    text_ids = torch.tensor([[tokenizer.bos_token_id, *ids]])
    return {"text": _likeliest(model, tokenizer, input_ids=text_ids), "pictures": pictures}


def _seen(model: Any, tokenizer: Any, pixels: np.ndarray, processing: dict[str, Any]) -> dict[str, float]:
    """What the model says after a turn with a picture in its middle."""
    import torch
    from PIL import Image
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    processor = Gemma4ImageProcessorPil(**{key: value for key, value in processing.items() if "type" not in key})
    seen = processor(images=[Image.fromarray(pixels)], return_tensors="pt")
    assert int(seen["num_soft_tokens_per_image"][0]) == PICTURE_TOKENS
    image = model.config.image_token_id
    ids = [
        tokenizer.bos_token_id,
        *ids_of(f"<|turn>user\n{BEFORE}"),
        model.config.boi_token_id,
        *([image] * PICTURE_TOKENS),
        model.config.eoi_token_id,
        *ids_of(f"{BEHIND}<turn|>\n<|turn>model\n"),
    ]
    kinds = torch.tensor([[int(one == image) for one in ids]])
    return _likeliest(
        model,
        tokenizer,
        input_ids=torch.tensor([ids]),
        mm_token_type_ids=kinds,
        pixel_values=seen["pixel_values"].float(),
        image_position_ids=seen["image_position_ids"],
    )


def _randomised(model: Any) -> Any:
    """The model with weights of the size that trained ones have, so that every part of it changes the answer."""
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() >= 2:
                weights.normal_(0.0, 1 / math.sqrt(weights[0].numel()))
            elif "q_norm" in name or "k_norm" in name:
                # Queries and keys of full size would make attention choose one token, and rounding choose another.
                weights.mul_(0.4)
            elif "norm" in name:
                # What layers add outweighs the embedding of the last token, which would be likeliest otherwise.
                weights.mul_(torch.empty_like(weights).uniform_(0.8, 2.0 if "post_" in name else 1.2))
        model.get_input_embeddings().weight.normal_(0.0, 0.02)
    return model.float().eval()


def _likeliest(model: Any, tokenizer: Any, **inputs: Any) -> dict[str, float]:
    """The likeliest next tokens with their log-probabilities."""
    import torch

    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    values, ids = torch.log_softmax(logits.double(), -1).topk(TOP)
    return {str(int(index)): float(value) for index, value in zip(ids, values, strict=True)}


def _as_published(path: Path) -> None:
    """Write what transformers 5 has for each layer as the published configuration has it, for all of a kind."""
    config = json.loads(path.read_text())
    text = config["text_config"]
    (head_dim,) = {layer["head_dim"] for layer in text.pop("per_layer_config").values()}
    text["global_head_dim"] = head_dim
    path.write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
