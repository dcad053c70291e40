"""The engine shows a model an image as llama.cpp's own helper does: the logits behind the prompt are the same."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelyard.engine.llama import ComputeSettings, Context, Model, Weights
from modelyard.engine.llama.library import lib, mtmd
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Image
from modelyard.protocol.requests import Stop
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven, Steps
from support.images import noise, question

CONTEXT = 1024
# Of the largest logit: steps of other sizes sum up in another order.
TOLERANCE = 0.02


@pytest.fixture(params=["gemma3", "idefics3", "qwen2vl", "internvl"])
def folder(request: pytest.FixtureRequest, vision_models: dict[str, Path]) -> Path:
    return vision_models[request.param]


def logits_of_llama_cpp(folder: Path, before: str, image: Image, after: str) -> npt.NDArray[np.float32]:
    """Behind a prompt that mtmd has cut into chunks and evaluated by itself."""
    weights = Weights([folder / "tiny-vision-F16.gguf"], on_progress=lambda _: True)
    context = Context(Model(weights), ComputeSettings(threads=2), length=CONTEXT, slots=1, batch_tokens=512)
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.warmup = False, 2, False
    projector = mtmd.mtmd_init_from_file(bytes(folder / "mmproj-tiny-vision-F16.gguf"), weights.pointer, params)
    pixels = np.frombuffer(image.pixels, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    bitmap = mtmd.mtmd_bitmap_init(image.width, image.height, pixels)
    prompt = f"{before}{mtmd.mtmd_default_marker().decode()}{after}".encode()
    text = mtmd.mtmd_input_text(prompt, len(prompt), True, True)
    chunks = mtmd.mtmd_input_chunks_init()
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    assert mtmd.mtmd_tokenize(projector, chunks, ctypes.byref(text), bitmaps, 1) == 0
    end = lib.llama_pos(0)
    outcome = mtmd.mtmd_helper_eval_chunks(projector, context.pointer, chunks, 0, 0, 512, True, ctypes.byref(end))
    assert outcome == 0
    size = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(weights.pointer)))
    logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context.pointer, -1), shape=(size,)).copy()
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    mtmd.mtmd_free(projector)
    context.free()
    weights.free()
    return logits


class Seen:
    """The logits that an engine samples from, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[npt.NDArray[np.float32]] = []
        logits = Context.logits

        def seeing(context: Context, rows: int) -> npt.NDArray[np.float32]:
            found = logits(context, rows)
            self.rows.extend(found.copy())
            return found

        monkeypatch.setattr(Context, "logits", seeing)


def engine(folder: Path, **settings: Any) -> Driven:
    driven = Driven(
        folder / "tiny-vision-F16.gguf",
        projector=folder / "mmproj-tiny-vision-F16.gguf",
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
        context_length=CONTEXT,
        **settings,
    )
    driven.loaded()
    return driven


BEFORE, AFTER = "Look at this: ", " What is it?"


@pytest.mark.parametrize("size", [(64, 48), (40, 90)])
def test_the_logits_are_those_of_llama_cpp(
    folder: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(1, *size)
    expected = logits_of_llama_cpp(folder, BEFORE, image, AFTER)
    seen = Seen(monkeypatch)
    driven = engine(folder)
    driven.answer(question(BEFORE, image, AFTER), max_tokens=1)
    # Found in the cache, and with another image between.
    driven.answer(question(BEFORE, noise(2, *size), AFTER), max_tokens=1, number=1)
    driven.answer(question(BEFORE, image, AFTER), max_tokens=1, number=2)
    driven.stopped(Stop())
    first, other, again = seen.rows
    scale = float(np.abs(expected).max())
    assert np.abs(first - expected).max() < TOLERANCE * scale
    assert np.abs(again - expected).max() < TOLERANCE * scale
    assert np.abs(other - expected).max() > 10 * TOLERANCE * scale


@pytest.mark.parametrize("keeps_kv", [True, False])
def test_a_suspended_answer_goes_on_with_its_images(
    folder: Path, keeps_kv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = question(BEFORE, noise(1), " and ", noise(2), AFTER)
    seen = Seen(monkeypatch)
    whole = engine(folder)
    whole.answer(prompt, max_tokens=12)
    whole.stopped(Stop())
    undisturbed, seen.rows = seen.rows, []
    first = engine(folder)
    Steps(monkeypatch).after(8, lambda: first.send(Stop(suspend=True, keep_bytes=2**40 if keeps_kv else 0)))
    first.submit(0, prompt, max_tokens=12)
    left: list[SuspendedSequence] = first.suspended()
    assert [state.sequence for state in left] == [SequenceId(0)]
    second = engine(folder)
    second.send(Resume(left[0]))
    second.finished(0)
    second.stopped(Stop())
    assert len(seen.rows) == len(undisturbed) == 12
    # As long as rounding has not led to another word, the logits are the same.
    alike = 1
    while alike < 12 and seen.rows[alike - 1].argmax() == undisturbed[alike - 1].argmax():
        alike += 1
    assert alike > 2
    scale = float(np.abs(undisturbed[0]).max())
    for found, expected in zip(seen.rows[:alike], undisturbed[:alike], strict=True):
        assert np.abs(found - expected).max() < TOLERANCE * scale


def test_what_gives_way_for_another_is_shown_its_image_again(folder: Path) -> None:
    # Together they do not fit, so one of them is computed twice.
    driven = engine(folder, prefix_slots=1, max_seqs=3)
    alone = [driven.answer(question(BEFORE, noise(n), AFTER), number=n, max_tokens=4) for n in range(3)]
    filler = "word " * 150
    for number in range(3):
        driven.submit(10 + number, question(f"{filler}{number} ", noise(number), AFTER), max_tokens=150)
    for number in range(3):
        driven.finished(10 + number)
    again = [driven.answer(question(BEFORE, noise(n), AFTER), number=20 + n, max_tokens=4) for n in range(3)]
    driven.stopped(Stop())
    assert again == alone
    assert len(set(alone)) == 3
