"""What llguidance takes for text is what the engine writes."""

from __future__ import annotations

from pathlib import Path

from modelyard.engine.guidance import Vocabulary
from modelyard.engine.llama import Model, Weights
from support.gguf_writer import I32, STR, array, gguf, model_pairs, model_tensors
from unit.engine.guidance.words import allowed, constraint

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
WORDS = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
WORDS |= {f"<0x{byte:02X}>": BYTE for byte in range(256)}
WORDS |= {"▁": NORMAL, "a": NORMAL, "<tool_call>": USER_DEFINED, "<|im_end|>": CONTROL, "[unused]": UNUSED}
IDS = {word: number for number, word in enumerate(WORDS)}


def load(folder: Path) -> Weights:
    pairs = model_pairs(vocabulary=list(WORDS))
    pairs["tokenizer.ggml.tokens"] = array(STR, list(WORDS))
    pairs["tokenizer.ggml.token_type"] = array(I32, list(WORDS.values()))
    path = folder / "tiny.gguf"
    path.write_bytes(gguf(pairs, model_tensors(len(WORDS))))
    return Weights([path], on_progress=lambda _: True)


def test_text_may_be_any_token_that_the_engine_writes_as_text_and_no_other(tmp_path: Path) -> None:
    weights = load(tmp_path)
    model = Model(weights)
    vocabulary: Vocabulary = model.vocabulary()
    free = allowed(constraint(r"start: /(.|\n)*/", vocabulary), vocabulary.size) - weights.end_tokens
    pieces = [model.piece(token) for token in range(model.vocab_size)]
    assert all(pieces[token] for token in free)
    assert IDS["<tool_call>"] in free
    assert not {IDS["<unk>"], IDS["<s>"]} & free
    named = {word: model.control_token(word) for word in ("<tool_call>", "<|im_end|>", "<s>", "a", "nothing")}
    weights.free()
    assert named == {
        "<tool_call>": None,
        "<|im_end|>": IDS["<|im_end|>"],
        "<s>": IDS["<s>"],
        "a": None,
        "nothing": None,
    }


def test_bytes_that_are_no_character_are_no_text(tmp_path: Path) -> None:
    weights = load(tmp_path)
    vocabulary = Model(weights).vocabulary()
    free = allowed(constraint(r"start: /(.|\n)*/", vocabulary), vocabulary.size)
    weights.free()
    assert IDS["<0x41>"] in free
    assert IDS["<0xC3>"] in free
    assert not {IDS["<0xFF>"], IDS["<0x80>"]} & free
