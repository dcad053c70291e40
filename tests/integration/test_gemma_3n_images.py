"""A Gemma 3n checkpoint becomes a model that sees, in every precision of its projector."""

from __future__ import annotations

import base64
import io
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from modelyard.config import load_config
from modelyard.hub import ConvertedModels, Stores, prepare
from modelyard.yard.runtime.model_spec import plan_of
from support.converting import WAIT_S
from support.gemma_3n_sight import EDGE
from support.server import RunningServer, serving

pytestmark = pytest.mark.timeout(WAIT_S + 60)

ROOT = Path(__file__).resolve().parents[2]
# The precision of the projector follows that of the weights.
PRECISIONS = ("f32", "bf16")
TOP = 10
RED, BLUE = (230, 20, 20), (20, 20, 230)
# How much more another picture changes log-probabilities than the same one, whose prompt is then partly reused.
CHANGE = 3.0


@pytest.fixture(scope="module")
def gemma(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of one checkpoint in several precisions, by whose names it is asked for."""
    folder = tmp_path_factory.mktemp("gemma-3n")
    subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "gemma_3n_sight.py", folder / "checkpoint"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=WAIT_S,
        check=True,
    )
    file = folder / "models.toml"
    model = f'[[models]]\nmodel_id = "{folder / "checkpoint"}"\nkind = "multimodal"\n'
    file.write_text("".join(f'{model}alias = "{name}"\ndtype = "{name}"\n' for name in PRECISIONS))
    config = load_config(file)
    stores = Stores(converted=ConvertedModels(cache / "modelyard" / "converted"))
    for one in config.models:
        # Before the start, whose wait is bounded.
        prepare(plan_of(config, one, stores, lambda _: True), stores, lambda _: True)
    with serving(config, stores=stores) as server:
        yield server


def seen(server: RunningServer, model: str, colour: tuple[int, int, int]) -> dict[str, float]:
    """The likeliest first tokens of the answer to a picture of one colour, with their log-probabilities."""
    picture = io.BytesIO()
    Image.new("RGB", (EDGE, EDGE), colour).save(picture, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "brown fox"}]
    with server.client() as client:
        reply = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": parts}],  # type: ignore[list-item, misc]
            max_tokens=1,
            temperature=0,
            logprobs=True,
            top_logprobs=TOP,
        )
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.content is not None
    return {one.token: one.logprob for one in reply.choices[0].logprobs.content[0].top_logprobs}


def difference(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest difference of log-probabilities; infinite if no token is in both."""
    return max((abs(one[token] - other[token]) for token in one.keys() & other.keys()), default=math.inf)


@pytest.mark.parametrize("model", PRECISIONS)
def test_the_picture_changes_the_answer(gemma: RunningServer, model: str) -> None:
    red, blue, red_again = (seen(gemma, model, colour) for colour in (RED, BLUE, RED))
    assert difference(red, blue) > CHANGE * difference(red, red_again)


def test_both_precisions_see_the_same(gemma: RunningServer) -> None:
    exact, rounded = (seen(gemma, model, RED) for model in PRECISIONS)
    assert difference(exact, rounded) < difference(exact, seen(gemma, "f32", BLUE))


def test_it_takes_images_and_no_sound(gemma: RunningServer) -> None:
    for model in PRECISIONS:
        seen(gemma, model, RED)
    models = gemma.get("/v1/models").json()["data"]
    assert {one["id"]: one["input_modalities"] for one in models} == {one: ["text", "image"] for one in PRECISIONS}
