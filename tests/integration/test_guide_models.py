"""The guide's two models in the small: checkpoints that are quantised here, of which one sees."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modelyard.config import load_config
from modelyard.hub import ConvertedModels, Stores, prepare
from modelyard.yard.runtime.model_spec import plan_of
from support.converting import WAIT_S
from support.guide_models import BEFORE, BEHIND, GEMMA, QWEN, TEXT, TOP, picture
from support.server import RunningServer, serving

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
CLOSE = 1e-2

# Most of the likeliest tokens must be the same ones; the last of them may be near ties.
COMMON = TOP * 3 // 4


@dataclass(frozen=True)
class Guide:
    folder: Path
    reference: dict[str, Any]


@pytest.fixture(scope="module")
def guide(checkpoint: Path, weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Guide:
    """A folder with both models under their names, and what transformers computes of them."""
    folder = tmp_path_factory.mktemp("guide")
    program = ROOT / "tests" / "support" / "guide_models.py"
    subprocess.run(
        [sys.executable, program, folder, checkpoint, weights["gemma3"]],
        env={"PYTHONPATH": f"{ROOT / 'tests'}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=WAIT_S,
        check=True,
    )
    return Guide(folder, json.loads((folder / "reference.json").read_text()))


def served(guide: Guide, cache: Path, text: str) -> Iterator[RunningServer]:
    """A server of a configuration file beside the models."""
    file = guide.folder / "models.toml"
    file.write_text(text)
    config = load_config(file)
    stores = Stores(converted=ConvertedModels(cache / "modelyard" / "converted"))
    for model in config.models:
        # Before the start, whose wait is bounded.
        prepare(plan_of(config, model, stores, lambda _: True), stores, lambda _: True)
    with serving(config, stores=stores) as server:
        yield server


@pytest.fixture(scope="module")
def exact(guide: Guide, cache: Path) -> Iterator[RunningServer]:
    """Both at full precision."""
    models = "".join(f'[[models]]\nmodel_id = "{name}"\ndtype = "f32"\n' for name in (QWEN, GEMMA))
    yield from served(guide, cache, models)


def ask(seed: int) -> list[dict[str, Any]]:
    """A turn with a picture between words."""
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    parts = [
        {"type": "text", "text": BEFORE},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": BEHIND},
    ]
    return [{"role": "user", "content": parts}]


def seen(server: RunningServer, seed: int) -> dict[str, float]:
    """The likeliest first tokens of the answer to a picture, with their log-probabilities."""
    with server.client() as client:
        reply = client.chat.completions.create(
            model=GEMMA,
            messages=ask(seed),  # type: ignore[arg-type]
            max_tokens=1,
            temperature=0,
            logprobs=True,
            top_logprobs=TOP,
        )
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.content is not None
    return {one.token: one.logprob for one in reply.choices[0].logprobs.content[0].top_logprobs}


def continued(server: RunningServer, model: str) -> dict[str, float]:
    with server.client() as client:
        reply = client.completions.create(model=model, prompt=TEXT, max_tokens=1, temperature=0, logprobs=TOP)
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.top_logprobs is not None
    return reply.choices[0].logprobs.top_logprobs[0]


def assert_same(server: RunningServer, model: str, found: dict[str, float], expected: dict[str, float]) -> None:
    """Log-probabilities by token are those by token id in ``expected``."""
    texts = {
        server.post("/v1/detokenize", {"model": model, "tokens": [int(token)]}).json()["prompt"]: value
        for token, value in expected.items()
    }
    both = found.keys() & texts.keys()
    assert len(both) >= COMMON, (found, texts)
    assert {token: found[token] for token in both} == pytest.approx({token: texts[token] for token in both}, abs=CLOSE)


@pytest.mark.parametrize("model", [QWEN, GEMMA])
def test_text_goes_on_as_in_transformers(exact: RunningServer, guide: Guide, model: str) -> None:
    assert_same(exact, model, continued(exact, model), guide.reference[model]["text"])


def test_pictures_change_the_answer_as_in_transformers(exact: RunningServer, guide: Guide) -> None:
    answers = {seed: seen(exact, seed) for seed in (1, 2)}
    for seed, answer in answers.items():
        assert_same(exact, GEMMA, answer, guide.reference[GEMMA]["pictures"][str(seed)])
    assert max(answers[1], key=answers[1].__getitem__) != max(answers[2], key=answers[2].__getitem__)


def test_the_guide_s_file_quantises_both_and_one_of_them_sees(guide: Guide, cache: Path) -> None:
    (text,) = (block for block in re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL) if GEMMA in block)
    text = text.replace('quant = "4"', 'isq = "4"').replace('host = "0.0.0.0"\nport = 1234\n', "")
    for server in served(guide, cache, text):
        models = {model["id"]: model for model in server.get("/v1/models").json()["data"]}
        assert {name: model["quantization"] for name, model in models.items()} == dict.fromkeys((QWEN, GEMMA), "Q4_K_M")
        assert models[GEMMA]["kind"] == "multimodal"
        assert models[GEMMA]["input_modalities"][:2] == ["text", "image"]
        assert models[QWEN]["kind"] == "text"
        first, second = seen(server, 1), seen(server, 2)
        assert first != second
        assert len(continued(server, QWEN)) >= COMMON


def test_the_readme_s_program_runs(
    guide: Guide, user_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "MultiModelB" in block)
    monkeypatch.chdir(guide.folder)
    exec(compile(program, "getting-started.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.long
def test_an_export_to_uqff_sees_too(guide: Guide, cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelyard", "quantize", "-m", GEMMA, "--isq", "q8_0", "-o", tmp_path / "exported"]
    subprocess.run(command, cwd=guide.folder, capture_output=True, timeout=WAIT_S, check=True)
    model = f'[[models]]\nmodel_id = "{tmp_path / "exported"}"\nalias = "{GEMMA}"\n[models.quantization]\nquant = "8"\n'
    for server in served(guide, cache, model):
        assert seen(server, 1) != seen(server, 2)


def test_a_gguf_export_has_its_projector_beside_it(guide: Guide, user_cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelyard", "quantize", "-m", GEMMA, "--isq", "4", "-o", tmp_path / "small.gguf"]
    done = subprocess.run(command, cwd=guide.folder, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mmproj-small-F16.gguf", "small.gguf"]
    assert "mmproj-small-F16.gguf: its projector" in done.stdout


def test_as_text_it_is_served_without_its_towers(guide: Guide, cache: Path) -> None:
    for server in served(
        guide, cache, f'[[models]]\nmodel_id = "{GEMMA}"\nkind = "text"\n[models.quantization]\nisq = "4"\n'
    ):
        (model,) = server.get("/v1/models").json()["data"]
        assert model["kind"] == "text"
        assert "warnings" not in model
        refused = server.post("/v1/chat/completions", {"model": GEMMA, "messages": ask(1)})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_operation")
