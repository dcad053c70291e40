"""Embeddings and scores of documents, compared with what transformers computes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from architectures.making import publish
from architectures.places import cache
from architectures.pooled import Pooled
from architectures.pooled_tokenizers import MAKERS, PairTokenizer
from architectures.server import Refusal, Served, serving
from architectures.words import LONG

# The cosine between two vectors of the same text, and how far two scores may be apart.
MIN_COSINE: Final = {"F32": 0.9995, "Q8_0": 0.99}
MAX_OFF: Final = {"F32": 0.02, "Q8_0": 0.3}

_TEXTS: Final = ("the quick brown fox", LONG[:400], "gold and freedom", "salt wind under stars " * 12)
_QUERY: Final = "what did heroes find"
_DOCUMENTS: Final = ("gold and freedom", "the quick brown fox jumps", "wind and salt and the slow turning stars")


@dataclass(slots=True)
class PooledResult:
    """What came of serving one model.

    Attributes:
        off: by level: one less the smallest cosine of two vectors, or the largest difference of two scores.
        failures: by level, the error that it was refused with.
        same_tokens: whether all texts were as many tokens as in transformers.
    """

    off: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    same_tokens: bool = True

    def is_right(self, architecture: Pooled, level: str) -> bool:
        """Whether it is what transformers computes, as far as a level of quantisation can have it."""
        if level not in self.off or not self.same_tokens:
            return False
        most = MAX_OFF[level] if architecture.is_ranker else 1 - MIN_COSINE[level]
        return self.off[level] <= most


def compare_vectors(architecture: Pooled) -> PooledResult:
    """Make a checkpoint, serve it and compare.

    Raises:
        Ended: the server's process ended.
        Unavailable: its tokenizer cannot be had.
    """
    folder = cache() / "checkpoints" / architecture.name
    model, tokenizer = _make(architecture, folder)
    result = PooledResult()
    with serving(architecture.name, folder, ("F32", "Q8_0"), context=None) as served:
        for level in ("F32", "Q8_0"):
            try:
                if architecture.is_ranker:
                    result.off[level] = _scores_off(served, level, model, tokenizer)
                else:
                    off, same = _vectors_off(served, level, model, tokenizer, architecture.pooling)
                    result.off[level] = off
                    result.same_tokens = result.same_tokens and same
            except Refusal as refusal:
                result.failures[level] = str(refusal)
    return result


def _make(architecture: Pooled, folder: Path) -> tuple[Any, PairTokenizer]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers

    from architectures.weights import randomise

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = MAKERS[architecture.tokenizer](folder)
    model_class = getattr(transformers, architecture.model)
    torch.manual_seed(0)
    config = model_class.config_class(**architecture.settings, vocab_size=tokenizer.size)
    model = model_class._from_config(config, attn_implementation="eager").float().eval()
    randomise(model, range(tokenizer.size))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "classifier" in name and weight.dim() == 2:
                weight.copy_(torch.randn(weight.shape) * 3 / weight.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    publish(folder, architecture.published)
    if architecture.pooling:
        _write_pooling(folder, architecture.pooling)
    return model, tokenizer


def _write_pooling(folder: Path, pooling: str) -> None:
    """Say as sentence-transformers does how vectors become one."""
    kinds = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"}
    names = ("Transformer", "Pooling")
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(zip(names, ("", "1_Pooling"), strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    (folder / "1_Pooling").mkdir()
    facts = {"word_embedding_dimension": 128} | {key: kind == pooling for kind, key in kinds.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(facts), "utf-8")


def _vectors_off(served: Served, level: str, model: Any, tokenizer: PairTokenizer, pooling: str) -> tuple[float, bool]:
    import numpy as np
    import torch

    said = served.post("/v1/embeddings", {"model": level, "input": list(_TEXTS)})
    least = 1.0
    encoded = [tokenizer.encode(text) for text in _TEXTS]
    for item, ids in zip(said["data"], encoded, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
        theirs = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        ours = np.array(item["embedding"])
        least = min(least, float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)))
    return 1 - least, said["usage"]["prompt_tokens"] == sum(map(len, encoded))


def _scores_off(served: Served, level: str, model: Any, tokenizer: PairTokenizer) -> float:
    said = served.post("/v1/rerank", {"model": level, "query": _QUERY, "documents": list(_DOCUMENTS)})
    ours = {item["index"]: item["relevance_score"] for item in said["results"]}
    theirs = _scores(model, tokenizer)
    return max(abs(ours[at] - score) for at, score in enumerate(theirs))


def _scores(model: Any, tokenizer: PairTokenizer) -> Sequence[float]:
    import torch

    scores = []
    for document in _DOCUMENTS:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode_pair(_QUERY, document)])).logits
        scores.append(float(torch.sigmoid(logits[0, 0])))
    return scores
