"""Completes texts, fills a gap, and reads log-probabilities: for base models, which no chat template makes chat.

python examples/completions.py [FILE.gguf]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from modelyard import Model, ModelyardError, TextModelBuilder

WEIGHTS = Path(__file__).parent.parent / ".weights"


def continued(model: Model, text: str) -> str:
    """Stream a continuation, and return it."""
    pieces: list[str] = []
    with model.stream_completion_request(text, max_tokens=16, temperature=0) as stream:
        for piece in stream:
            print(piece.choices[0].text, end="", flush=True)
            pieces.append(piece.choices[0].text)
    print()
    return "".join(pieces)


def surprise(model: Model, text: str) -> float:
    """Return how surprising a text is to a model, in bits per token: it is repeated with its log-probabilities."""
    answer = model.send_completion_request(text, max_tokens=1, echo=True, logprobs=0)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    known = [each for each in logprobs.token_logprobs[:-1] if each is not None]
    return -sum(known) / len(known) / math.log(2)


def main() -> None:
    """Run the example."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS / "gemma-3-270m-q4_k_m.gguf"
    try:
        with TextModelBuilder(path).with_max_seq_len(512).build() as model:
            print(model)
            continued(model, "The three primary colours are")
            for text in ("The capital of France is Paris.", "The capital of France is purple."):
                print(f"{surprise(model, text):.1f} bits per token: {text}")
    except ModelyardError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
