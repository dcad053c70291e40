"""UQFF between the reference and us: it reads what we write, we read what it writes, and both say the same.

The reference comes from PyPI, into a virtual environment of its own that the benchmarks use too.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import checkpoint as demo_checkpoint
import pytest
from bench.peers import environment
from rich.console import Console

from modelyard.config import validate_config
from modelyard.hub import ConvertedModels, FileRequest, Hub, Stores, UqffExport, export_uqff, resolve
from support.server import serving

ROOT = Path(__file__).parent.parent.parent
READER = ROOT / "tests" / "support" / "mistralrs_reader.py"
PROMPT = "Write one sentence about the sea."
ANSWER = "The sea is a vast"
TOKENS = 5
WAIT_S = 400.0

# One of each family that the reference computes on a processor. It reads q8_1 and q8k, and ends at their first product;
# mxfp4, embeddings included, leaves too little of so small a model.
TYPES = ("q4k", "afq4", "hqq4", "fp8", "f8q8")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def reference() -> Path:
    """The Python that has mistralrs."""
    return environment("mistralrs", ROOT / ".bench", Console(quiet=True))


@pytest.fixture(scope="module")
def checkpoint(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_checkpoint.make(weights["smollm2"], tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def ours(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What we write."""
    out = tmp_path_factory.mktemp("ours")
    export_uqff(FileRequest(str(checkpoint)), UqffExport(TYPES, out), Stores(), lambda _: True)
    return out


def ask_reference(python: Path, jobs: list[dict[str, Any]]) -> list[str]:
    """What the reference says to PROMPT in each job."""
    jobs = [{"prompt": PROMPT, "tokens": TOKENS, **job} for job in jobs]
    # More threads than cores wait for each other in a loop.
    env = {**os.environ, "RAYON_NUM_THREADS": str(os.cpu_count()), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, READER, json.dumps(jobs)], capture_output=True, text=True, timeout=WAIT_S, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('"')]
    assert len(said) == len(jobs)
    return said


def ask_us(sources: dict[str, Path], folder: Path) -> dict[str, str]:
    """What our engine says to PROMPT, by type, of each type in its folder."""
    stores = Stores(Hub(), ConvertedModels(folder))
    files = {
        type_: resolve(FileRequest(str(source), from_uqff=type_), stores).paths[0] for type_, source in sources.items()
    }
    models = [{"model_id": str(path), "alias": type_, "device": {"max_seq_len": 256}} for type_, path in files.items()]
    said = {}
    with serving(validate_config({"models": models}, source="test", base=ROOT)) as server, server.client() as client:
        for type_ in files:
            answer = client.chat.completions.create(
                model=type_, messages=[{"role": "user", "content": PROMPT}], max_tokens=TOKENS, temperature=0
            )
            said[type_] = answer.choices[0].message.content or ""
    return said


@pytest.mark.long
def test_the_reference_reads_every_family_that_we_write(reference: Path, ours: Path):
    said = ask_reference(reference, [{"model": str(ours), "from_uqff": f"{type_}-0.uqff"} for type_ in TYPES])
    assert dict(zip(TYPES, said, strict=True)) == dict.fromkeys(TYPES, ANSWER)


@pytest.mark.long
def test_we_say_what_the_reference_says_of_the_same_file(ours: Path, tmp_path: Path):
    assert ask_us({"hqq4": ours}, tmp_path) == {"hqq4": ANSWER}


@pytest.mark.long
def test_we_read_what_the_reference_writes(reference: Path, checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    jobs = [{"model": str(checkpoint), "isq": "q4k", "write_uqff": str(folder / "q4k.uqff")}]
    assert ask_reference(reference, jobs) == [ANSWER]
    assert ask_us({"q4k": folder}, tmp_path / "converted") == {"q4k": ANSWER}
