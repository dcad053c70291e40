"""Files of models that generate, well formed and odd: llama.cpp runs them or refuses them, and never aborts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from support.gguf_writer import F32, I32, STR, U32, Tensor, array, gguf, model_pairs, model_tensors, write
from support.server import WAIT_S

# An abort of llama.cpp ends a process, which is not to be the one of the tests. It loads every file as an engine does,
# and reads a text that is in the vocabulary, one that is not, and as much as a sequence may have.
GENERATES = textwrap.dedent("""
    import sys
    from modelyard.engine.llama import Batch
    from modelyard.engine.loading.load import load
    from modelyard.protocol.prompts import Text
    from modelyard.engine.settings import EngineSettings
    from modelyard.engine.loading.weights import WeightsPool
    from modelyard.errors import InvalidRequest, UnusableModel
    from modelyard.hub import FileRequest, resolve

    for path in sys.argv[1:]:
        try:
            paths = resolve(FileRequest(path)).paths
            settings = EngineSettings("m", paths, "", "text", context_length=1024, batch_tokens=64)
            engine = load(settings, WeightsPool(), lambda _: True)
        except UnusableModel as refused:
            print("refused:", str(refused).replace("\\n", " "), flush=True)
            continue
        said = []
        for text in ("abc", "z"):
            try:
                said.append(str(engine.prompts.read(Text(text)).tokens))
            except InvalidRequest as refused:
                said.append(refused.args[0])
        engine.model.vocabulary()
        engine.model.tokenize_plain(b"abz")
        batch = Batch(64)
        for position in range(engine.context.length):
            batch.fill(0, [4], position, 0, outputs=1)
            assert engine.context.decode(batch, 1) == 0
        print(*said, engine.context.length, flush=True)
        engine.free()
""")
UNREADABLE = "'prompt' has parts for which the model's vocabulary has no token."
VOCABULARY = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "d"]


def outcomes(folder: Path, contents: Sequence[bytes]) -> list[str]:
    paths = [str(write(folder / f"{number}.gguf", content)) for number, content in enumerate(contents)]
    done = subprocess.run([sys.executable, "-c", GENERATES, *paths], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def llama(tokenizer: str, vocabulary: Sequence[str] = VOCABULARY, **numbers: int) -> bytes:
    """A llama that was trained on 128 tokens, with another tokenizer."""
    pairs = model_pairs(vocabulary=vocabulary)
    pairs["tokenizer.ggml.model"] = (STR, tokenizer)
    pairs["tokenizer.ggml.token_type"] = array(I32, [2, 3, 3] + [1] * (len(vocabulary) - 3))
    pairs |= {f"tokenizer.ggml.{key}_token_id": (U32, number) for key, number in numbers.items()}
    return gguf(pairs, model_tensors(len(vocabulary)))


def gpt2(positions: int) -> bytes:
    """A model whose positions are learned."""
    pairs = model_pairs("gpt2", VOCABULARY)
    pairs |= {
        "gpt2.context_length": (U32, positions),
        "gpt2.attention.head_count_kv": (U32, 2),
        "gpt2.attention.layer_norm_epsilon": (F32, 1e-5),
        "tokenizer.ggml.model": (STR, "gpt2"),
        "tokenizer.ggml.merges": array(STR, ["a b"]),
        "tokenizer.ggml.token_type": array(I32, [2, 3, 3] + [1] * (len(VOCABULARY) - 3)),
    }
    layer = {"attn_qkv": (32, 96), "attn_output": (32, 32), "ffn_up": (32, 32), "ffn_down": (32, 32)}
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    tensors = [
        Tensor("token_embd.weight", (32, len(VOCABULARY))),
        Tensor("position_embd.weight", (32, positions)),
        *(Tensor(f"{name}.{part}", (32,)) for name in norms for part in ("weight", "bias")),
        *(Tensor(f"blk.0.{name}.weight", shape) for name, shape in layer.items()),
        *(Tensor(f"blk.0.{name}.bias", shape[1:]) for name, shape in layer.items()),
    ]
    return gguf(pairs, tensors)


def test_text_that_the_vocabulary_has_no_token_for_is_refused(tmp_path: Path) -> None:
    unknown_is_outside = llama(
        "bert", ["<unk>", "<s>", "</s>", *(f"▁{letter}" for letter in "abcd"), "▁abc"], seperator=2
    )
    assert outcomes(tmp_path, [unknown_is_outside, llama("t5", unknown=0)]) == [
        f"[1, 7] {UNREADABLE} 1024",
        "[4, 5, 6] [0] 1024",
    ]


def test_a_tokenizer_that_might_never_end_is_refused(tmp_path: Path) -> None:
    spelt = [repr(bytes([byte]))[2:-1] for byte in range(256)]
    whole, damaged = ["<s>", "<unk>", "</s>", *spelt], ["<s>", "<unk>", "</s>", *spelt[:-1]]
    ran, refused = outcomes(tmp_path, [llama("rwkv", whole), llama("rwkv", damaged)])
    assert ran.endswith(" 1024")
    assert "The vocabulary lacks the byte 0xFF" in refused


def test_a_sequence_has_no_more_tokens_than_learned_positions(tmp_path: Path) -> None:
    assert [said.split()[-1] for said in outcomes(tmp_path, [gpt2(100), gpt2(256), gpt2(2048)])] == [
        "100",
        "256",
        "1024",
    ]
