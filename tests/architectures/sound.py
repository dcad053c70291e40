"""Sound: families of models that hear, and what compares each of them with transformers.

A family is entered with a function that makes its checkpoint in a folder, serves it, and says in a few words what came
of it: "yes", or what differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from architectures.page import RIGHT
from architectures.places import ROOT, Unavailable, cache
from architectures.server import Ended
from support.sound_comparison import SoundResult

_WAIT_S: Final = 600


def _compared(name: str, folder: Path) -> str:
    """Make, serve and compare one family in a process of its own.

    Raises:
        Ended: that process ended without a result.
        Unavailable: the tokenizer cannot be had.
    """
    from checkpoint import make
    from demo_weights import WeightsUnavailable, prepare

    try:
        like = make(prepare(ROOT / ".weights")["smollm2"], ROOT / ".weights")
    except WeightsUnavailable as error:
        raise Unavailable(str(error)) from error
    program = ROOT / "tests" / "support" / "sound_comparison.py"
    paths = os.pathsep.join(str(ROOT / part) for part in ("src", "tests"))
    done = subprocess.run(
        [sys.executable, str(program), name, str(folder), str(like)],
        env={**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(cache() / "served" / name)},
        capture_output=True,
        text=True,
        timeout=_WAIT_S,
        check=False,
    )
    if done.returncode:
        raise Ended(f"{done.returncode}: {done.stderr[-500:]}")
    result = SoundResult(**json.loads(done.stdout.splitlines()[-1]))
    if result.is_equal:
        return RIGHT
    return f"differs by {result.difference:.2f}, where another clip changes it by {result.between_clips:.2f}"


CLASSES: Final = {
    "qwen2-audio": "Qwen2AudioForConditionalGeneration",
    "qwen3-asr": "Qwen3ASRForConditionalGeneration",
    "qwen2.5-omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "audio-flamingo3": "AudioFlamingo3ForConditionalGeneration",
    "gemma4": "Gemma4ForConditionalGeneration",
}
"""The class of transformers that each family is."""

SOUND: Final[dict[str, Callable[[str, Path], str]]] = dict.fromkeys(CLASSES, _compared)
