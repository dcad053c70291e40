"""What a model that hears answers here, beside what transformers computes of the same checkpoint.

    python tests/support/sound_comparison.py FAMILY FOLDER CHECKPOINT [SECONDS...]

A program of its own, since torch is not to be in the process of the tests. Prints a ``SoundResult`` as JSON.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import modelyard
from modelyard.errors import ModelyardError
from support.sounding import make
from support.sounds import audio_file, chirp, input_audio

# Prompts: text, sound, text.
BEFORE, BEHIND = "The quick brown fox", " jumps over the lazy dog"

# Natural logarithms of probabilities. llama.cpp computes convolutions of sound in half precision, so that what comes
# out of the first layers is right to three digits; all else is computed in single precision. A window too many, a token
# that is missing or a wrong sign moves them by whole numbers, as another clip does.
TOLERANCE: Final = 0.1

# How many of the likeliest tokens are compared: as many as a request may ask for.
_COMPARED: Final = 20


@dataclass(frozen=True)
class SoundResult:
    """What was found of one family.

    Attributes:
        name: of the family.
        difference: the largest of log-probabilities, over all clips; infinite where other tokens are the likeliest.
        between_clips: the smallest between two clips in transformers, which says that the comparison means something.
        is_repeated: whether the same clip is answered from the cache, and the same.
        why: what llama.cpp does otherwise, or why it is refused; "" for neither.
    """

    name: str
    difference: float
    between_clips: float
    is_repeated: bool
    why: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether llama.cpp computes what transformers computes, as far as this tells."""
        return self.difference < TOLERANCE < self.between_clips and self.is_repeated


def compare_sound(name: str, folder: Path, like: Path, lengths_s: tuple[float, ...] = (1.9, 29.9, 35.4)) -> SoundResult:
    """Make the family ``name`` in ``folder``, convert and serve it, and compare what follows prompts with clips.

    Args:
        like: a checkpoint whose tokenizer it gets.
        lengths_s: of the clips, in seconds; of a window, of nearly a whole one, and of more than one.
    """
    hearing = make(name, folder / name, like)
    clips = [chirp(seconds, seed) for seed, seconds in enumerate((lengths_s[0], *lengths_s))]
    expected = [hearing.log_probabilities(BEFORE, clip, BEHIND) for clip in clips]
    between = min(
        float(np.abs(a - b)[np.argsort(a)[-_COMPARED:]].max()) for at, a in enumerate(expected) for b in expected[:at]
    )
    builder = modelyard.MultimodalModelBuilder(folder / name).with_dtype("f32").with_max_seq_len(4096)
    try:
        with builder.build() as model:
            answers = [_answer(model, clip) for clip in clips]
            again = _answer(model, clips[0])
            # Among the likeliest of transformers more are looked for, since rounding moves the last of them.
            likeliest = {int(token) for wanted in expected for token in np.argsort(wanted)[-2 * _COMPARED :]}
            texts = {token: model.detokenize([token]) for token in likeliest}
    except ModelyardError as refused:
        return SoundResult(name, math.inf, between, False, str(refused))
    differences = [_difference(answer.likely, wanted, texts) for answer, wanted in zip(answers, expected, strict=True)]
    is_repeated = again.cached_tokens == again.prompt_tokens - 1 and again.likely == answers[0].likely
    return SoundResult(name, float(max(differences)), between, is_repeated, hearing.differs)


@dataclass(frozen=True)
class _Answer:
    likely: tuple[tuple[str, float], ...]
    prompt_tokens: int
    cached_tokens: int


def _answer(model: Any, clip: npt.NDArray[np.float32]) -> _Answer:
    content = [
        {"type": "text", "text": BEFORE},
        input_audio(audio_file(clip, subtype="FLOAT")),
        {"type": "text", "text": BEHIND},
    ]
    answer = model.send_chat_request(
        [{"role": "user", "content": content}], max_tokens=1, temperature=0, logprobs=True, top_logprobs=_COMPARED
    )
    likely = tuple((each.token, each.logprob) for each in answer.choices[0].logprobs.content[0].top_logprobs)
    details = answer.usage.prompt_tokens_details
    return _Answer(likely, answer.usage.prompt_tokens, details.cached_tokens)


def _difference(
    likely: Iterable[tuple[str, float]], expected: npt.NDArray[np.float64], texts: Mapping[int, str]
) -> float:
    """The largest of all tokens that are told.

    Several tokens may have one text, as a letter and its byte do: the likeliest of each text are compared with each
    other, and so on down.
    """
    by_text: defaultdict[str, list[float]] = defaultdict(list)
    for token in np.argsort(expected)[::-1]:
        if int(token) in texts:
            by_text[texts[int(token)]].append(float(expected[token]))
    remaining = {text: iter(values) for text, values in by_text.items()}
    ordered = sorted(likely, key=lambda each: -each[1])
    return max(abs(value - next(remaining.get(text, iter(())), -math.inf)) for text, value in ordered)


if __name__ == "__main__":
    family, into, tokenizer, *seconds = sys.argv[1:]
    options = {"lengths_s": tuple(map(float, seconds))} if seconds else {}
    print(json.dumps(asdict(compare_sound(family, Path(into), Path(tokenizer), **options))))
