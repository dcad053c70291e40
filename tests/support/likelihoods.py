"""A greedy answer with its log-probabilities: ``python tests/support/likelihoods.py MODEL.gguf TEXT TOKENS`` prints it.

A program of its own, on llama-cpp-python's high-level class: a second opinion on what our own engine computes.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from llama_cpp import Llama


def answer(path: str, text: str, count: int) -> list[tuple[list[int], float, list[float]]]:
    """The bytes of each token, its log-probability, and those of the five likeliest."""
    model = Llama(path, n_ctx=256, n_batch=256, logits_all=True, verbose=False)
    tokens = model.tokenize(text.encode(), add_bos=True, special=True)
    said = []
    for _ in range(count):
        model.eval(tokens)
        logits = np.asarray(model.scores[model.n_tokens - 1], np.float64)
        logits -= logits.max()
        scores = logits - np.log(np.exp(logits).sum())
        token = int(scores.argmax())
        said.append((list(model.detokenize([token])), float(scores[token]), np.sort(scores)[::-1][:5].tolist()))
        tokens = [token]
    return said


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
