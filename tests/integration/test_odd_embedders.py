"""Files of embedding models that are well formed and odd: llama.cpp runs them or refuses them, and never aborts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from support.gguf_writer import BOOL, STR, U32, tiny_encoder, tiny_model, tiny_ranker, tiny_yes_no_ranker, write
from support.server import WAIT_S

# An abort of llama.cpp ends a process, which is not to be the one of the tests. It loads every file as an engine does,
# and embeds the longest input, several at once, and a text.
EMBEDS = textwrap.dedent("""
    import sys
    from pathlib import Path
    from modelyard.engine.pooling.load import load_pooling_model
    from modelyard.protocol.prompts import Text
    from modelyard.engine.settings import EngineSettings
    from modelyard.engine.loading.weights import WeightsPool
    from modelyard.errors import InvalidRequest, UnusableModel
    from modelyard.hub import FileRequest, resolve
    from modelyard.yard.memory.pooling_footprint import predict_embedder
    from modelyard.yard.memory.prediction import ContextSettings

    kind, *paths = sys.argv[1:]
    for path in paths:
        try:
            files = resolve(FileRequest(path, kind=kind))
            predict_embedder(files, ContextSettings(None, running=4, sequences=4, batch_tokens=64))
            settings = EngineSettings("m", files.paths, "", files.kind, max_seqs=4, batch_tokens=64)
            engine = load_pooling_model(settings, WeightsPool(), lambda _: True)
        except UnusableModel as refused:
            print("refused:", str(refused).replace("\\n", " "), flush=True)
            continue
        longest = engine.profile.context_length
        if longest <= 8192:
            engine.context.embed([[5] * longest])
        try:
            if files.kind == "rerank":
                texts = engine.inputs.read("w5", ["w6 and more", ""])
            else:
                texts = engine.inputs.read((Text("w5 w6 and more"),))
        except InvalidRequest:
            texts = []
        vectors = engine.context.embed([*texts, [5, 6], [5]])
        scores = vectors[0].tolist() if files.kind == "rerank" else ""
        print("embedded:", longest, engine.context.pooling, scores, flush=True)
        engine.free()
""")


def outcomes(folder: Path, contents: list[bytes], kind: str = "embedding") -> list[str]:
    paths = [str(write(folder / f"{number}.gguf", content)) for number, content in enumerate(contents)]
    done = subprocess.run([sys.executable, "-c", EMBEDS, kind, *paths], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines()]


def test_pooling_and_attention_of_any_kind_are_run(tmp_path: Path) -> None:
    cases: list[tuple[bytes, str]] = []
    for pooling, name in [(0, None), (1, "mean"), (2, "cls"), (3, "last")]:
        for causal in (True, False):
            encoder: dict[str, Any] = {"bert.pooling_type": (U32, pooling), "bert.attention.causal": (BOOL, causal)}
            cases.append((tiny_encoder(encoder), f"embedded: 32 {name or 'mean'}"))
            decoder = {"llama.pooling_type": (U32, pooling), "llama.attention.causal": (BOOL, causal)}
            unsaid = "last" if causal else "mean"
            cases.append((tiny_model(decoder), f"embedded: 128 {name or unsaid}"))
    assert outcomes(tmp_path, [content for content, _ in cases]) == [outcome for _, outcome in cases]


def test_what_ranks_yields_no_embeddings(tmp_path: Path) -> None:
    said = outcomes(tmp_path, [tiny_encoder({"bert.pooling_type": (U32, 4)})])
    assert "kind = 'embedding', but this model ranks documents and yields no embeddings." in said[0]


def test_rankers_of_both_kinds_score_pairs(tmp_path: Path) -> None:
    said = outcomes(tmp_path, [tiny_ranker(), tiny_yes_no_ranker()], "auto")
    # A logit of one score; of "yes" and "no", llama.cpp makes probabilities.
    assert said == ["embedded: 32 rank [0.0]", "embedded: 128 rank [0.5, 0.5]"]


def test_what_tells_classes_apart_is_no_ranker(tmp_path: Path) -> None:
    (said,) = outcomes(tmp_path, [tiny_ranker(labels=3)], "auto")
    assert "Its head tells 3 classes apart and ranks no documents." in said


def test_numbers_that_do_not_fit_are_refused_or_harmless(tmp_path: Path) -> None:
    keys = [
        "bert.block_count",
        "bert.context_length",
        "bert.embedding_length",
        "bert.feed_forward_length",
        "bert.attention.head_count",
        "bert.pooling_type",
        "tokenizer.ggml.token_type_count",
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.seperator_token_id",
    ]
    contents = [tiny_encoder({key: (U32, number)}) for key in keys for number in (0, 1, 3, 33, 2**31, 2**32 - 1)]
    contents += [tiny_encoder({key: None}) for key in keys]
    contents += [tiny_encoder({"tokenizer.ggml.model": (STR, model)}) for model in ("llama", "gpt2", "t5", "none")]
    assert len(outcomes(tmp_path, contents)) == len(contents)
