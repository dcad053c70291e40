"""A chat template that does not end costs the request that it was rendered for, and nobody else."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import two_models
from modelyard.config import Config, validate_config
from support.server import WAIT_S, RunningServer, serving

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def config(weights: dict[str, Path], folder: Path) -> Config:
    """Both models, and SmolLM2 with a template that never ends, and with one that does not where a message says so."""
    both = two_models(weights).model_dump(exclude_unset=True)
    templates = {
        "never": ENDLESS,
        "now": "{% for m in messages %}\n{% if 'now' in m.content %}"
        + ENDLESS
        + "{% endif %}{{ m.content }}{% endfor %}",
    }
    models = [*both["models"]]
    for name, source in templates.items():
        (folder / f"{name}.jinja").write_text(source)
        device = {"max_seq_len": 512}
        model = {"model_id": str(weights["smollm2"]), "alias": name, "device": device, "load": "on-demand"}
        models.append({**model, "chat_template": str(folder / f"{name}.jinja")})
    return validate_config({**both, "models": models}, source="test", base=ROOT)


@pytest.fixture(scope="module")
def server(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(config(weights, tmp_path_factory.mktemp("templates"))) as running:
        yield running


def chat(server: RunningServer, model: str, text: str) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2}
    return server.post("/v1/chat/completions", body)


def test_a_render_without_end_is_the_clients_error_and_holds_up_no_other_model(server: RunningServer) -> None:
    assert chat(server, "now", "later").status_code == 200
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(chat(server, "now", "do it now")))
    thread.start()
    for _ in range(3):
        assert chat(server, "smollm2", "Hello.").status_code == 200
    thread.join(WAIT_S)
    error = answers[0].json()["error"]
    assert (answers[0].status_code, error["param"]) == (400, "messages")
    assert "did not end within 2 s (line 2: {% if 'now' in m.content %}" in error["message"]
    assert chat(server, "now", "later").status_code == 200


def test_a_model_whose_template_never_ends_continues_text_all_the_same(server: RunningServer) -> None:
    text = server.post("/v1/completions", {"model": "never", "prompt": "The sea", "max_tokens": 2})
    assert text.status_code == 200
    refused = chat(server, "never", "Hello.")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_operation")
    assert "did not end within 2 s (line 1: " in refused.json()["error"]["message"]


def test_a_server_leaves_no_process_behind(weights: dict[str, Path]) -> None:
    def children() -> set[str]:
        # The second field behind the name, which is in brackets, is the parent.
        ours = f" {os.getpid()} "
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "stat").read_text().rpartition(")")[2][2:].startswith(ours):
                    found.add(process.name)
        return found

    before = children()
    with serving(two_models(weights)) as running:
        assert chat(running, "smollm2", "Hello.").status_code == 200
        assert len(children() - before) == 1
    assert children() <= before
