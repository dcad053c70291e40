"""A reranker: the BERT of all-MiniLM-L6-v2, which comes as a package, with a ranking head of random weights.

    python tests/support/reranker.py FOLDER < PAIRS.json

A program of its own, since torch is not to be in the process of the tests. It writes the checkpoint, and prints the
logits of a list of (query, document), as transformers computes them. The segments of both texts are those of the first:
llama.cpp knows no other.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from support.minilm import WAIT_S, folder

# So that scores are as far apart as those of a trained head.
_SPREAD = 40.0


def make_reranker(place: Path, query: str, documents: Sequence[str]) -> npt.NDArray[np.float64]:
    """Write the checkpoint into ``place``; its logits of [documents], both by a child process."""
    done = subprocess.run(
        [sys.executable, "-m", "support.reranker", str(place)],
        input=json.dumps([(query, document) for document in documents]),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


def main() -> None:
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    torch.set_num_threads(1)
    torch.manual_seed(0)
    place = Path(sys.argv[1])
    model = BertForSequenceClassification.from_pretrained(folder(), num_labels=1)
    with torch.no_grad():
        model.classifier.weight *= _SPREAD
    model.save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(folder() / name, place / name)
    tokenizer = AutoTokenizer.from_pretrained(place)
    logits = []
    with torch.inference_mode():
        for query, document in json.load(sys.stdin):
            given = tokenizer(query, document, return_tensors="pt")
            given["token_type_ids"] = torch.zeros_like(given["input_ids"])
            logits.append(model(**given).logits.item())
    print(json.dumps(logits))


if __name__ == "__main__":
    main()
