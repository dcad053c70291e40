"""Damaged headers and tensors: what the reader and the trial let pass must not end or hang the engine."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from fuzz.case import Ending, Fault, Place
from fuzz.children import run_child
from fuzz.damage import damaged
from fuzz.gguf_file import GgufFile
from fuzz.prepare import Prepared, prepare
from fuzz.serving import serve, try_model
from fuzz.tiny_models import ARCHITECTURES, NotGrown, cut_model, tiny_model
from modelyard.errors import ConfigError, UnusableModel

SERVE_CPU_S: Final = 60.0
# Of the 20 s that a trial may take: with these models it takes 0.1 s.
TRIAL_CPU_S: Final = 8.0
TRIED: Final = "refused in its trial"
_REAL: Final = 0.3


def play_header(seed: int, place: Place) -> Ending:
    """A model with some damage, on its whole way to an engine."""
    rng = random.Random(f"headers {seed}")
    try:
        model = _model(rng, place)
    except NotGrown:
        return Ending("no model")
    model, changes = damaged(rng, model)
    what = f"{model.architecture}: {'; '.join(changes)}"
    path = place.folder / "model.gguf"
    path.write_bytes(model.content())
    mapping = {
        "runtime": {
            "max_seqs": rng.choice((1, 2, 8)),
            "prefix_cache_n": rng.choice((0, 1, 8)),
            "batch_tokens": rng.choice((32, 64, 512)),
            "kv_type": rng.choice(("f16", "f16", "q8_0")),
            "prompt_lookup": rng.random() < 0.5,
        },
        "models": [{"model_id": str(path), "device": {"max_seq_len": rng.choice((64, 256, 512, 2048))}}],
    }
    try:
        prepared = prepare(mapping)
    except (UnusableModel, ConfigError):
        return Ending("refused")
    except Exception as failure:
        raise Fault(f"{what}: the reader raises {type(failure).__name__}: {failure}") from failure
    return Ending(play_engine(prepared, seed, what))


def play_engine(prepared: Prepared, seed: int, what: str, *, tells: bool = False) -> str:
    """Try a model, and serve it where it passes; how it ended. tells: also why a trial failed.

    Raises:
        Fault: it passed, and then ended or hung its process.
    """
    trial = replace(prepared.trial, limits=replace(prepared.trial.limits, cpu_s=TRIAL_CPU_S))
    tried = run_child(try_model, trial, cpu_s=TRIAL_CPU_S)
    if tried.end.startswith("an exception"):
        raise Fault(f"{what}: its trial raises {tried.end}")
    if tried.end or tried.value:
        return f"{TRIED}: {tried.end or tried.value}" if tells else TRIED
    vocabulary = prepared.trial.vocabulary_size
    ended = run_child(serve, prepared.settings, vocabulary, seed, cpu_s=SERVE_CPU_S)
    if ended.end:
        raise Fault(f"{what}: {ended.end} ({ended.step})")
    return "some requests failed" if ended.value.get("failed") else "served"


def _model(rng: random.Random, place: Place) -> GgufFile:
    if rng.random() < _REAL:
        return cut_model(place.weights)
    return tiny_model(rng.choice(ARCHITECTURES))
