"""The examples, and the Python in the documents, run as they are; only models of the hub become those of the tests."""

from __future__ import annotations

import json
import re
import runpy
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from modelyard import EmbeddingModelBuilder, MultiModelBuilder, TextModelBuilder

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_MAX_TOKENS", "4")


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("two_models.py", r"smollm2: .+\ngemma3: [\s\S]*\nstreamed: .+"),
        (
            "routing.py",
            r"2 \+ 2\? \((easy|hard), so \w+\): [\s\S]*primes\. \((easy|hard), so \w+\): ",
        ),
        ("draft_review.py", r"a haiku about rain: [\s\S]*a slogan for a bakery: "),
        ("completions.py", r"red[\s\S]*bits per token: The capital of France is purple"),
    ],
)
def test_an_example_runs(
    script: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert re.search(says, capsys.readouterr().out)


@pytest.mark.usefixtures("weights")
def test_the_functions_of_the_example_are_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Enough for the calls.
    monkeypatch.setenv("MODELYARD_MAX_TOKENS", "64")
    monkeypatch.setattr(sys, "argv", ["tools.py"])
    runpy.run_path(str(EXAMPLES / "tools.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r'list_rooms\(\{\s*\}\): \["garden","tower"\]', printed)
    assert re.search(r'book_room\([\s\S]*\): \{"room":"garden","day":"2026-05-01","guests":2\}', printed)


@pytest.mark.usefixtures("weights")
def test_the_retrieval_finds_the_passage(
    minilm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["retrieval.py", str(minilm)])
    runpy.run_path(str(EXAMPLES / "retrieval.py"), run_name="__main__")
    found, answer = capsys.readouterr().out.split("answer: ", 1)
    assert "library lends books" in found
    assert answer.strip()


@pytest.mark.usefixtures("weights")
async def test_the_mounted_yard_answers_beside_the_applications_own_routes() -> None:
    app = runpy.run_path(str(EXAMPLES / "mounted.py"))["app"]
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://shop.example", timeout=WAIT_S) as client,
    ):
        assert (await client.get("/llm/v1/models")).json()["data"][0]["status"] == "loaded"
        assert (await client.get("/title", params={"text": "Rain fell all night."})).json()


@pytest.mark.usefixtures("weights")
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive:UserWarning")
def test_the_notebook_draws_the_speeds_of_both_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "tokens_per_second.ipynb").read_text("utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "tokens_per_second.ipynb", "exec", dont_inherit=True), names)
    assert re.search(r"smollm2: \d+ tokens.*\ngemma3: \d+ tokens", capsys.readouterr().out)
    assert [len(bars) for bars in names["axes"].containers] == [2, 2]
    names["plt"].close("all")


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.iterdir() if path.is_file() and path.name not in tests] == []


def programs(page: str) -> list[str]:
    """The blocks of Python in a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


def on_local_models(program: str, weights: dict[str, Path]) -> str:
    """``program`` with small files in the place of models that it would download and quantise."""
    for hub, local in (("Qwen/Qwen3-4B", "smollm2"), ("google/gemma-4-E4B-it", "gemma3")):
        built = rf'\w+Builder\("{hub}"\)\.with_isq\(IsqType\.Q4K\)'
        small = f'TextModelBuilder("{weights[local]}").with_max_seq_len(512)'
        if local == "gemma3":
            small += f'.with_chat_template("{EXAMPLES / "gemma.jinja"}")'
        program = re.sub(built, small, program).replace(f'"{hub}"', f'"{weights[local]}"')
    return program.replace("MultimodalModelBuilder, ", "")


@pytest.mark.usefixtures("weights")
def test_the_python_of_the_documents_runs(
    drawn_weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of a page build on each other; those that need a server are tested against one elsewhere."""
    (tmp_path / "models.toml").write_text((EXAMPLES / "demo.toml").read_text("utf-8").replace('"../', f'"{ROOT}/'))
    (tmp_path / "gemma.jinja").write_bytes((EXAMPLES / "gemma.jinja").read_bytes())
    monkeypatch.chdir(tmp_path)
    for page in ("docs/getting-started.md", "docs/python-api.md", "docs/tools.md"):
        names: dict[str, object] = {"__name__": page}
        for program in programs(page):
            if "base_url" not in program:
                exec(compile(on_local_models(program, drawn_weights), page, "exec", dont_inherit=True), names)
        assert "modelyard" not in {thread.name for thread in threading.enumerate()}, f"{page} leaves a model open"
    assert capsys.readouterr().out.strip()


def test_the_programs_of_clients_run(
    weights: dict[str, Path], minilm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They name a server, in whose place is a client in process."""
    builder = (
        MultiModelBuilder()
        .add_model_with_alias("smollm2", TextModelBuilder(weights["smollm2"]).with_sampling(temperature=0))
        .add_model_with_alias("minilm", EmbeddingModelBuilder(minilm))
    )
    with builder.build() as model:
        for page in sorted((ROOT / "docs").glob("*.md")):
            for program in programs(f"docs/{page.name}"):
                # Speech needs a model that hears: tests/conformance/test_openai_audio.py runs it against one.
                if "OpenAI(base_url" in program and page.name != "audio.md":
                    in_process = re.sub(r"OpenAI\(.*\)", "model.openai_client()", program)
                    exec(compile(in_process, page.name, "exec", dont_inherit=True), {"model": model})
                    assert capsys.readouterr().out.strip(), page.name
