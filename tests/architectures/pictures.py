"""Pictures: the next token after a prompt with a picture in it, compared with what transformers computes."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from architectures.layouts import LAYOUTS
from architectures.making import filled, publish
from architectures.places import cache
from architectures.server import Refusal, serving
from architectures.sight import BEGIN, END, PICTURE, VIDEO, Seeing
from architectures.tokenizers import Tokenizer, make_tokenizer

# How far log-probabilities may be off: llama.cpp computes towers in 16 bits in places.
MOST: Final = 0.3
_MIN_COMMON: Final = 3
_LIKELIEST: Final = 10
_BEFORE: Final = "the quick"
_BEHIND: Final = "brown fox"


@dataclass(slots=True)
class PictureResult:
    """What came of showing one model a picture.

    Attributes:
        off: the largest difference of log-probabilities of the next token.
        changes: by how much the picture changes them in transformers: a difference must be far below.
        tokens: of the prompt, here and in transformers.
        failure: the error that it was refused with.
    """

    off: float = float("inf")
    changes: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    failure: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the picture does what it does in transformers."""
        return self.off <= MOST and self.off < self.changes / 3


def compare_pictures(architecture: Seeing) -> PictureResult:
    """Make a checkpoint, serve it and compare.

    Raises:
        Ended: the server's process ended.
    """
    folder = cache() / "checkpoints" / architecture.name
    model, tokenizer, picture_id = _make(architecture, folder)
    image = _image(architecture.edge, 0)
    ids = _prompt(architecture, tokenizer, picture_id)
    wanted = _logprobs(architecture, model, tokenizer, ids, image)
    other = _logprobs(architecture, model, tokenizer, ids, _image(architecture.edge, 1))
    result = PictureResult(changes=max(abs(wanted[piece] - other.get(piece, wanted[piece])) for piece in wanted))
    with serving(architecture.name, folder, ("F32",), kind="multimodal", dtype="f32") as served:
        try:
            said = served.post("/v1/chat/completions", _request(image))
        except Refusal as refusal:
            result.failure = str(refusal)
            return result
    result.tokens = said["usage"]["prompt_tokens"], len(ids)
    likeliest = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    ours = {token["token"].strip(): token["logprob"] for token in likeliest}
    both = ours.keys() & wanted.keys()
    if len(both) >= _MIN_COMMON:
        result.off = max(abs(ours[piece] - wanted[piece]) for piece in both)
    return result


def _make(architecture: Seeing, folder: Path) -> tuple[Any, Tokenizer, int]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers

    from architectures.weights import randomise

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(architecture.tokenizer, folder)
    ids = {name: tokenizer.size + at for at, name in enumerate((PICTURE, VIDEO, BEGIN, END))}
    settings = _with_ids(filled(architecture.settings, tokenizer.size + 8), ids)
    settings["text_config"]["vocab_size"] = tokenizer.size + 8
    model_class = getattr(transformers, architecture.model)
    torch.manual_seed(0)
    config = model_class.config_class(**settings)
    model = model_class._from_config(config, attn_implementation="eager").float().eval()
    randomise(model, tokenizer.words)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "patch_embed" in name and weight.dim() > 2:
                weight.copy_(torch.randn(weight.shape) / weight[0].numel() ** 0.5)
            if "mm_input_projection" in name:
                weight.copy_(torch.randn(weight.shape) * 0.05)
    model.save_pretrained(folder)
    publish(folder, architecture.published)
    if architecture.tower:
        _rename_tower(folder, *architecture.tower)
    if architecture.layout:
        LAYOUTS[architecture.layout](folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_processor(architecture)), "utf-8")
    return model, tokenizer, ids[PICTURE]


def _with_ids(settings: Any, ids: Mapping[str, int]) -> Any:
    if isinstance(settings, dict):
        return {key: _with_ids(value, ids) for key, value in settings.items()}
    return ids.get(settings, settings) if isinstance(settings, str) else settings


def _rename_tower(folder: Path, written: str, published: str) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    renamed = {
        name if published in name else name.replace(written, published, 1): weight for name, weight in weights.items()
    }
    save_file(renamed, path, metadata={"format": "pt"})


def _processor(architecture: Seeing) -> dict[str, Any]:
    return {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": architecture.edge, "width": architecture.edge},
        **architecture.processor,
    }


def _image(edge: int, seed: int) -> Any:
    """A picture of large squares, of the size that towers take: nothing is scaled on the way."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(3 + seed)
    squares = random.integers(0, 255, (4, 4, 3))
    return Image.fromarray(np.kron(squares, np.ones((edge // 4, edge // 4, 1))).astype(np.uint8))


def _request(image: Any) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [
        {"type": "text", "text": _BEFORE},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": _BEHIND},
    ]
    return {
        "model": "F32",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 2,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": _LIKELIEST,
        "ignore_eos": True,
    }


def _prompt(architecture: Seeing, tokenizer: Tokenizer, picture_id: int) -> list[int]:
    """The ids of the prompt, with the picture's in it."""
    first = tokenizer.encode("")

    def inner(text: str) -> list[int]:
        return tokenizer.encode(text)[len(first) :] if text else []

    before, behind = architecture.around
    picture = [picture_id] * architecture.tokens
    if architecture.row_break:
        row = [picture_id] * math.isqrt(architecture.tokens)
        picture = [*([*row, *inner(architecture.row_break)] * (len(row) - 1)), *row]
    # The template of the checkpoint puts a space behind a message.
    return [*tokenizer.encode(_BEFORE), *inner(before), *picture, *inner(behind), *inner(f"{_BEHIND} ")]


def _logprobs(
    architecture: Seeing, model: Any, tokenizer: Tokenizer, ids: Sequence[int], image: Any
) -> dict[str, float]:
    """The likeliest next tokens by their text, as transformers computes them."""
    import torch

    kinds = torch.tensor([[int(token >= tokenizer.size) for token in ids]])
    given = _given(architecture, image, kinds)
    with torch.no_grad():
        read = _read_merged if architecture.given == "merged" else _read
        logits = read(model, ids, given)[0, -1].double()
    top = torch.topk(torch.log_softmax(logits, -1), _LIKELIEST + 2)
    return {
        tokenizer.pieces[int(token)].replace("Ġ", " ").replace("▁", " ").strip(): float(value)
        for token, value in zip(top.indices, top.values, strict=True)
        if int(token) < tokenizer.size
    }


def _read(model: Any, ids: Sequence[int], given: Mapping[str, Any]) -> Any:
    import torch

    return model(input_ids=torch.tensor([list(ids)]), **given).logits


def _read_merged(model: Any, ids: Sequence[int], given: Mapping[str, Any]) -> Any:
    """What a Llama 4 answers; its class fails when it has read, for want of something that it returns besides."""
    import torch

    tokens = torch.tensor([list(ids)])
    features = model.get_image_features(**given).last_hidden_state
    picture = model.multi_modal_projector(features.flatten(0, 1))
    embeddings = model.get_input_embeddings()(tokens)
    is_picture = (tokens == model.config.image_token_index)[..., None].expand_as(embeddings)
    return model.language_model(inputs_embeds=embeddings.masked_scatter(is_picture, picture)).logits


def _given(architecture: Seeing, image: Any, kinds: Any) -> dict[str, Any]:
    """The picture as the class wants it, and which tokens it is."""
    return GIVEN[architecture.given](_processor(architecture), image, kinds)


def _pixels(processor: Mapping[str, Any], image: Any) -> Any:
    import numpy as np
    import torch

    values = np.asarray(image).astype(np.float32) / 255
    normal = (values - np.array(processor["image_mean"], np.float32)) / np.array(processor["image_std"], np.float32)
    return torch.tensor(normal).permute(2, 0, 1)[None].float()


def _sections(processor: Mapping[str, Any], image: Any, kinds: Any) -> dict[str, Any]:
    """Patches in the order in which they are merged, twice, as if they were of a film; and the kinds of tokens."""
    from transformers import Qwen2VLImageProcessor

    cutting = Qwen2VLImageProcessor(
        do_resize=False,
        image_mean=processor["image_mean"],
        image_std=processor["image_std"],
        patch_size=14,
        temporal_patch_size=2,
        merge_size=2,
    )
    cut = cutting(images=[image], return_tensors="pt")
    return {
        "pixel_values": cut["pixel_values"].float(),
        "image_grid_thw": cut["image_grid_thw"],
        "mm_token_type_ids": kinds,
    }


def _shaped(processor: Mapping[str, Any], image: Any, _kinds: Any) -> dict[str, Any]:
    """Flat patches of 16 pixels a side with their colours last, and how many rows and columns there are."""
    import torch

    cut = _pixels(processor, image)[0].unfold(1, 16, 16).unfold(2, 16, 16).permute(1, 2, 3, 4, 0)
    rows, columns = cut.shape[:2]
    return {
        "pixel_values": cut.reshape(1, rows * columns, -1),
        "spatial_shapes": torch.tensor([[rows, columns]]),
        "pixel_attention_mask": torch.ones(1, rows * columns, dtype=torch.long),
    }


def _sized(processor: Mapping[str, Any], image: Any, _kinds: Any) -> dict[str, Any]:
    import torch

    return {"pixel_values": _pixels(processor, image), "image_sizes": torch.tensor([[image.height, image.width]])}


GIVEN: Final[Mapping[str, Callable[[Mapping[str, Any], Any, Any], dict[str, Any]]]] = {
    "pixels": lambda processor, image, _kinds: {"pixel_values": _pixels(processor, image)},
    "merged": lambda processor, image, _kinds: {"pixel_values": _pixels(processor, image)},
    "typed": lambda processor, image, kinds: {"pixel_values": _pixels(processor, image), "token_type_ids": kinds},
    "tiles": lambda processor, image, _kinds: {"pixel_values": _pixels(processor, image)[:, None]},
    "sized": _sized,
    "sections": _sections,
    "shaped": _shaped,
}
