"""Checkpoints in the layout of the hub, each with what transformers answers of it; made once."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from architectures.heads import add_heads
from architectures.places import cache
from architectures.shapes import NULL, VOCABULARY, Architecture
from architectures.tokenizers import Tokenizer, make_tokenizer
from architectures.words import PROMPTS

STEPS: Final = 20

# Changes with how checkpoints are made: they are then made anew.
_GENERATION: Final = 3
# Steps of which the log-probabilities of the likeliest tokens are kept, and how many tokens.
_KEPT_STEPS: Final = 6
_KEPT_TOKENS: Final = 12
_ROW_MULTIPLE: Final = 64
_ROUNDING: Final = 2.0**-11
_ROUNDED_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What transformers continues a prompt with, greedily.

    Attributes:
        prompt_ids: of the prompt.
        ids: of the answer.
        pieces: of the answer, as the vocabulary spells them.
        leads: by how much each token was likelier than the next, in log-probability.
        likeliest: of the first steps, log-probabilities by piece.
        sway: by how much the log-probabilities of the first step move when all matrix products are rounded as numbers
            of 16 bits are: what a comparison cannot tell from a difference.
    """

    prompt_ids: list[int]
    ids: list[int]
    pieces: list[str]
    leads: list[float]
    likeliest: list[dict[str, float]]
    sway: float


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint, and the answers to ``words.PROMPTS`` by name; none of what transformers cannot continue with."""

    folder: Path
    answers: Mapping[str, Answer]
    vocabulary: int


def made(architecture: Architecture, home: Path | None = None) -> Made:
    """The checkpoint of an architecture, made unless it is there.

    Raises:
        Unavailable: its tokenizer cannot be had.
    """
    folder = (home or cache() / "checkpoints") / architecture.name
    answers_path = folder.with_name(f"{architecture.name}.answers.json")
    described = describe(architecture)
    if answers_path.is_file():
        kept = json.loads(answers_path.read_text("utf-8"))
        if kept["described"] == described:
            return Made(folder, {name: Answer(**one) for name, one in kept["answers"].items()}, kept["vocabulary"])
    answers_path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    answers, vocabulary = _make(architecture, folder)
    facts = {
        "described": described,
        "vocabulary": vocabulary,
        "answers": {name: asdict(one) for name, one in answers.items()},
    }
    partial = answers_path.with_suffix(".partial")
    partial.write_text(json.dumps(facts), "utf-8")
    partial.replace(answers_path)
    return Made(folder, answers, vocabulary)


def describe(architecture: Any) -> str:
    """All that the checkpoint of an architecture is made of, as text."""
    return json.dumps({"generation": _GENERATION, **asdict(architecture)}, sort_keys=True, default=str)


def filled(settings: Any, rows: int) -> Any:
    """Settings with the size of the vocabulary in its places."""
    if isinstance(settings, Mapping):
        return {key: filled(value, rows) for key, value in settings.items()}
    return rows if settings == VOCABULARY else copy.deepcopy(settings)


def _make(architecture: Architecture, folder: Path) -> tuple[dict[str, Answer], int]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers

    from architectures.weights import randomise

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    tokenizer = make_tokenizer(architecture.tokenizer, folder)
    rows = -(-tokenizer.size // _ROW_MULTIPLE) * _ROW_MULTIPLE if tokenizer.pads_vocabulary else tokenizer.size
    model_class = getattr(transformers, architecture.model)
    settings = filled(architecture.settings, rows)
    (settings.get("text_config") or settings)["vocab_size"] = rows
    torch.manual_seed(0)
    config = model_class.config_class(**settings)
    config._attn_implementation = "eager"
    try:
        model = model_class._from_config(config, attn_implementation="eager")
    except ValueError:
        # Attention that has one implementation alone.
        model = model_class(config)
    model = model.float().eval()
    randomise(model, tokenizer.words)
    model.save_pretrained(folder)
    publish(folder, architecture.published)
    if architecture.heads:
        add_heads(folder, architecture.heads)
    if config.is_encoder_decoder:
        return {}, rows
    return {name: answer_of(model, tokenizer, text) for name, text in PROMPTS.items()}, rows


def publish(folder: Path, published: Mapping[str, Any]) -> None:
    """Give config.json the keys that the published checkpoints have."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    for key, value in published.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = None if value == NULL else value
    path.write_text(json.dumps(config, indent=1), "utf-8")


def answer_of(model: Any, tokenizer: Tokenizer, text: str) -> Answer:
    """What ``model`` continues ``text`` with, each step computed from the beginning."""
    import torch

    ids = list(tokenizer.encode(text))
    prompt = list(ids)
    leads, likeliest = [], []
    for step in range(STEPS):
        with torch.no_grad():
            try:
                logits = model(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits
            except TypeError:
                logits = model(torch.tensor([ids])).logits
        logprobs = torch.log_softmax(logits[0, -1].double(), -1)
        top = torch.topk(logprobs, _KEPT_TOKENS)
        leads.append(float(top.values[0] - top.values[1]))
        if step < _KEPT_STEPS:
            likeliest.append(
                {
                    tokenizer.pieces[int(token)]: float(value)
                    for token, value in zip(top.indices, top.values, strict=True)
                    if int(token) < tokenizer.size
                }
            )
        ids.append(int(top.indices[0]))
    answer = ids[len(prompt) :]
    pieces = [tokenizer.pieces[token] if token < tokenizer.size else "" for token in answer]
    return Answer(prompt, answer, pieces, leads, likeliest, _sway(model, prompt))


def _sway(model: Any, ids: list[int]) -> float:
    import torch

    generator = torch.Generator().manual_seed(3)

    def rounded(_module: Any, _inputs: Any, output: Any) -> Any:
        if not torch.is_tensor(output):
            return output
        noise = torch.randn(output.shape, generator=generator)
        return output * (1 + _ROUNDING * noise)

    def logprobs() -> Any:
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0, -1].double(), -1)

    exact = logprobs()
    likeliest = torch.topk(exact, _KEPT_TOKENS).indices
    matrices = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [matrix.register_forward_hook(rounded) for matrix in matrices]
    try:
        return max(float((logprobs() - exact)[likeliest].abs().max()) for _ in range(_ROUNDED_RUNS))
    finally:
        for hook in hooks:
            hook.remove()
