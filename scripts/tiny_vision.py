"""Make a tiny model that takes images, with random weights: a language model and its projector, both GGUF.

    python scripts/tiny_vision.py DIRECTORY [--projector gemma3|idefics3|qwen2vl|internvl]

No package carries real weights of such a model. The language model has SmolLM2's tokenizer and chat template, so that
text works; what it says means nothing, but depends on every token and every pixel. The projector is one of four kinds:
gemma3 shows an image as one piece, whose tokens see each other; idefics3 shows it as several, each in causal order, and
internvl only where it is larger than a piece; qwen2vl shows it in its own proportions, with positions in two
dimensions, to a model that has these.
Needs the extras ``demo`` and ``convert``. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llama_gguf
import numpy as np
from demo_weights import WeightsUnavailable, prepare
from gguf_file import GgufFile

NAME = "tiny-vision"
SEED = 7
KINDS = ("gemma3", "idefics3", "qwen2vl", "internvl")

# Of the language model.
WIDTH, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 4, 128, 2048

# Of the projector: 8 x 8 patches, which 2 x 2 by 2 x 2 become the 16 tokens of a piece.
IMAGE, PATCH, MERGED = 32, 4, 2
SEEN_WIDTH, SEEN_LAYERS, SEEN_HEADS, SEEN_FEED_FORWARD = 32, 2, 2, 64

# Special tokens that idefics3 puts around images, in the place of some that chats do not use.
RENAMED = {"<repo_name>": "<fake_token_around_image>", "<reponame>": "<global-img>", "<file_sep>": "<image>"}

# Random weights are larger than trained ones, so that the logits of two images differ by more than rounding.
SCALE = 0.25


def make(weights: Path, folder: Path, projector: str = "gemma3") -> tuple[Path, Path]:
    """The model and its projector in ``folder``, made from the tokenizer of ``weights``.

    Raises:
        WeightsUnavailable: the package gguf is not installed.
    """
    llama_gguf.add_to_path()
    try:
        import gguf
    except ImportError as error:
        raise WeightsUnavailable(f"{error.name} is not installed. Run: make convert") from error
    folder.mkdir(parents=True, exist_ok=True)
    model, mmproj = folder / f"{NAME}-F16.gguf", folder / f"mmproj-{NAME}-F16.gguf"
    if not model.exists():
        _write_model(gguf, weights, model, "qwen2vl" if projector == "qwen2vl" else "llama")
    _write_projector(gguf, mmproj, projector)
    return model, mmproj


def _write_model(gguf: Any, weights: Path, path: Path, architecture: str) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(NAME)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    if architecture == "qwen2vl":
        writer.add_rope_dimension_sections([2, 3, 3, 0])
    vocabulary = 0
    for name, value, types in _tokenizer(weights):
        if name == "tokenizer.ggml.tokens":
            vocabulary = len(value)
        if types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, value, types[0], types[-1])
        else:
            writer.add_key_value(name, value, types[0])
    writer.add_vocab_size(vocabulary)
    put = _random_tensors(writer)
    put("token_embd.weight", vocabulary, WIDTH)
    put("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            put(f"blk.{layer}.{part}.weight", WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            put(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
            if architecture == "qwen2vl" and part != "attn_output":
                put(f"blk.{layer}.{part}.bias", WIDTH)
        put(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        put(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, WIDTH)
        put(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
    _finish(writer)


@cache
def _tokenizer(weights: Path) -> list[tuple[str, Any, list[Any]]]:
    """Names, values and types of the metadata that concern the tokenizer."""
    fields = [field for name, field in GgufFile(weights).fields.items() if name.startswith("tokenizer.")]
    values = {field.name: field.contents() for field in fields}
    values["tokenizer.ggml.tokens"] = [RENAMED.get(token, token) for token in values["tokenizer.ggml.tokens"]]
    return [(field.name, values[field.name], field.types) for field in fields]


def _write_projector(gguf: Any, path: Path, kind: str) -> None:
    """Source of names and shapes: llama.cpp, load_tensors in tools/mtmd/clip.cpp; siglip.cpp, qwen2vl.cpp in models."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name(f"{NAME} projector")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "qwen2vl_merger" if kind == "qwen2vl" else kind)
    writer.add_uint32("clip.vision.image_size", IMAGE)
    writer.add_uint32("clip.vision.patch_size", PATCH)
    writer.add_uint32("clip.vision.embedding_length", SEEN_WIDTH)
    writer.add_uint32("clip.vision.feed_forward_length", SEEN_FEED_FORWARD)
    writer.add_uint32("clip.vision.block_count", SEEN_LAYERS)
    writer.add_uint32("clip.vision.attention.head_count", SEEN_HEADS)
    writer.add_uint32("clip.vision.projection_dim", WIDTH)
    writer.add_uint32("clip.vision.projector.scale_factor", MERGED)
    writer.add_uint32("clip.vision.preproc_image_size", 2 * IMAGE)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)
    put = _random_tensors(writer)
    put("v.patch_embd.weight", SEEN_WIDTH, 3, PATCH, PATCH)
    if kind == "qwen2vl":
        put("v.patch_embd.weight.1", SEEN_WIDTH, 3, PATCH, PATCH)
    else:
        put("v.patch_embd.bias", SEEN_WIDTH)
        if kind == "internvl":
            put("v.class_embd", SEEN_WIDTH)
        put("v.position_embd.weight", (IMAGE // PATCH) ** 2 + (kind == "internvl"), SEEN_WIDTH)
    for part in ("v.post_ln", *(f"v.blk.{layer}.{norm}" for layer in range(SEEN_LAYERS) for norm in ("ln1", "ln2"))):
        put(f"{part}.weight", SEEN_WIDTH)
        put(f"{part}.bias", SEEN_WIDTH)
    for layer in range(SEEN_LAYERS):
        for part, rows, columns in (
            ("attn_q", SEEN_WIDTH, SEEN_WIDTH),
            ("attn_k", SEEN_WIDTH, SEEN_WIDTH),
            ("attn_v", SEEN_WIDTH, SEEN_WIDTH),
            ("attn_out", SEEN_WIDTH, SEEN_WIDTH),
            ("ffn_up", SEEN_FEED_FORWARD, SEEN_WIDTH),
            ("ffn_down", SEEN_WIDTH, SEEN_FEED_FORWARD),
        ):
            put(f"v.blk.{layer}.{part}.weight", rows, columns)
            put(f"v.blk.{layer}.{part}.bias", rows)
    if kind == "gemma3":
        put("mm.soft_emb_norm.weight", SEEN_WIDTH)
        put("mm.input_projection.weight", SEEN_WIDTH, WIDTH)
    elif kind == "idefics3":
        put("mm.model.fc.weight", WIDTH, SEEN_WIDTH * MERGED**2)
    elif kind == "internvl":
        for part, shape in (("0", ()), ("1", (WIDTH,)), ("3", (WIDTH,))):
            width = WIDTH if part == "3" else SEEN_WIDTH * MERGED**2
            put(f"mm.model.mlp.{part}.weight", *shape, width)
            put(f"mm.model.mlp.{part}.bias", *(shape or (width,)))
    else:
        for part, rows in (("mm.0", SEEN_WIDTH * MERGED**2), ("mm.2", WIDTH)):
            put(f"{part}.weight", rows, SEEN_WIDTH * MERGED**2)
            put(f"{part}.bias", rows)
    _finish(writer)


def _random_tensors(writer: Any) -> Callable[..., None]:
    random = np.random.default_rng(SEED)

    def put(name: str, *shape: int) -> None:
        values = random.normal(0.0, SCALE, shape)
        # What scales a norm is about 1; what has one dimension must not be of 16 bits.
        is_norm = name.endswith(("norm.weight", "ln.weight", "ln1.weight", "ln2.weight"))
        kind = np.float32 if len(shape) == 1 or name == "v.position_embd.weight" else np.float16
        writer.add_tensor(name, (values + is_norm).astype(kind))

    return put


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--projector", choices=KINDS, default="gemma3")
    options = parser.parse_args()
    try:
        weights = prepare(Path(__file__).parent.parent / ".weights")["smollm2"]
        for path in make(weights, options.folder, options.projector):
            print(path)
    except WeightsUnavailable as unavailable:
        sys.exit(str(unavailable))


if __name__ == "__main__":
    main()
