"""Loads a projector with its model, and reserves the computation of an image, to test that llama.cpp does not abort.

    python -m modelyard.converter.try_projector PROJECTOR.gguf MODEL.gguf [MORE SHARDS] [--audio-encoder NAME]

It runs in a process of its own, because mtmd aborts the process if tensors do not fit one another. The model's weights
are mapped and not read. Only audio encoders that accept so little compute anything: a tenth of a second of silence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modelyard.converter.protocol import Refused, run
from modelyard.engine.llama import Model, Weights
from modelyard.engine.loading.sound import FILLED
from modelyard.engine.loading.vision import Vision
from modelyard.errors import UnusableModel
from modelyard.system.reporting_process import report

_ANY_BATCH = 2**31 - 1


def main(arguments: list[str]) -> None:
    """Load the files that the command line names.

    Raises:
        Refused: llama.cpp cannot load it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("projector", type=Path)
    parser.add_argument("model", type=Path, nargs="+")
    parser.add_argument("--audio-encoder", default="")
    options = parser.parse_args(arguments)
    report(step="trying the projector", fraction=0.0)
    try:
        weights = Weights(options.model, on_progress=lambda _: True, end_tokens=frozenset(), are_repacked=False)
        vision = Vision.load(
            options.projector,
            Model(weights),
            batch_tokens=_ANY_BATCH,
            device=None,
            threads=1,
            flash_attn=None,
            on_progress=lambda _: True,
            audio_encoder=options.audio_encoder,
        )
        if options.audio_encoder and options.audio_encoder not in FILLED:
            vision.hear_silence()
    except UnusableModel as unusable:
        raise Refused(str(unusable)) from unusable
    vision.free()
    weights.free()


if __name__ == "__main__":
    sys.exit(run(main))
