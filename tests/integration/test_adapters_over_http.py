"""LoRA adapters over HTTP: vLLM's requests that load and unload them, and llama.cpp's that list and scale them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.adapters import write_adapter
from support.peft_adapters import write_peft
from support.server import WAIT_S, RunningServer

PROMPT = {"prompt": "Tell me about the sea.", "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def path(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapters") / "sea.gguf", weights["smollm2"], seed=5, strength=0.03)


def load(server: RunningServer, path: Path, **more: Any) -> httpx.Response:
    return server.post(
        "/v1/load_lora_adapter",
        {"lora_name": "sea", "lora_path": str(path), "base_model_name": "smollm2", **more},
    )


@pytest.fixture
def adapted(server: RunningServer, path: Path) -> Iterator[RunningServer]:
    """The server, whose model smollm2 has an adapter while the test runs."""
    loaded = load(server, path)
    assert loaded.status_code == 200, loaded.text
    assert loaded.text == "Success: LoRA adapter 'sea' added successfully."
    yield server
    server.post("/lora-adapters?model=smollm2", [])
    server.post("/v1/unload_lora_adapter", {"lora_name": "sea"})


def text(server: RunningServer, model: str, **more: Any) -> str:
    answer = server.post("/v1/completions", {"model": model, **PROMPT, **more})
    assert answer.status_code == 200, answer.text
    written: str = answer.json()["choices"][0]["text"]
    return written


def listed(server: RunningServer) -> dict[str, Any]:
    return {model["id"]: model for model in server.get("/v1/models").json()["data"]}


def test_an_adapter_is_a_model_as_long_as_it_is_loaded(adapted: RunningServer) -> None:
    models = listed(adapted)
    card = models["smollm2::sea"]
    assert (card["parent"], card["root"], card["status"]) == ("smollm2", "sea", models["smollm2"]["status"])
    (shown,) = models["smollm2"]["adapters"]
    assert (shown["id"], shown["scale"]) == ("smollm2::sea", 1.0)
    assert adapted.get("/v1/models/smollm2::sea").json()["id"] == "smollm2::sea"
    base = text(adapted, "smollm2")
    with_it = text(adapted, "smollm2::sea")
    assert with_it != base
    assert text(adapted, "sea") == with_it
    unloaded = adapted.post("/v1/unload_lora_adapter", {"lora_name": "sea"})
    assert unloaded.text == "Success: LoRA adapter 'sea' removed successfully."
    assert "smollm2::sea" not in listed(adapted)
    assert adapted.post("/v1/completions", {"model": "smollm2::sea", **PROMPT}).status_code == 404
    assert adapted.post("/v1/unload_lora_adapter", {"lora_name": "sea"}).status_code == 404


def test_a_request_chooses_adapters_and_their_scales(adapted: RunningServer) -> None:
    base, with_it = text(adapted, "smollm2"), text(adapted, "smollm2::sea")
    assert text(adapted, "smollm2", lora=[{"id": 0, "scale": 1.0}]) == with_it
    assert text(adapted, "smollm2::sea", lora=[]) == base
    assert text(adapted, "smollm2::sea", lora=[{"id": 0, "scale": 0.0}]) == base
    refused = adapted.post("/v1/completions", {"model": "smollm2", **PROMPT, "lora": [{"id": 1, "scale": 1.0}]})
    assert refused.status_code == 400
    assert "has no adapter 1" in refused.json()["error"]["message"]


def test_scales_for_all_requests_are_set_and_listed_as_by_llama_cpp(adapted: RunningServer) -> None:
    base, with_it = text(adapted, "smollm2"), text(adapted, "smollm2::sea")
    entry = {"id": 0, "path": "sea.gguf", "scale": 0.0, "task_name": "sea", "prompt_prefix": ""}
    assert adapted.get("/lora-adapters?model=smollm2").json() == [entry]
    assert adapted.post("/lora-adapters?model=smollm2", [{"id": 0, "scale": 1.0}]).json() == {"success": True}
    assert adapted.get("/lora-adapters?model=smollm2").json() == [{**entry, "scale": 1.0}]
    assert text(adapted, "smollm2") == with_it
    assert adapted.post("/lora-adapters?model=smollm2", []).status_code == 200
    assert text(adapted, "smollm2") == base


def test_an_adapter_that_cannot_be_loaded_is_refused_and_changes_nothing(
    adapted: RunningServer, path: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(path.read_bytes()[:-100])
    cases = {
        "has an adapter 'sea' already": load(adapted, path),
        "There is no such file": load(adapted, tmp_path / "missing.gguf", lora_name="x"),
        "cut off": load(adapted, damaged, lora_name="x"),
        "architecture 'llama', but its base model has 'gemma3'": load(
            adapted, path, lora_name="x", base_model_name="google/gemma3"
        ),
        "absolute path": load(adapted, Path("sea.gguf"), lora_name="x"),
    }
    for reason, answer in cases.items():
        assert answer.status_code == 400, answer.text
        message = answer.json()["error"]["message"]
        assert reason in message
        assert str(tmp_path) not in message
    assert load(adapted, path, load_inplace=True).status_code == 200
    assert load(adapted, path, base_model_name="nothing").status_code == 404
    assert [model for model in listed(adapted) if "::" in model] == ["smollm2::sea"]
    httpx.get(f"{adapted.url}/health", timeout=WAIT_S).raise_for_status()


SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}


def test_a_folder_as_peft_saves_it_is_converted_and_served(adapted: RunningServer, tmp_path: Path) -> None:
    shapes = {"self_attn.q_proj": (576, 576), "self_attn.v_proj": (192, 576)}
    folder = write_peft(tmp_path / "legal", shapes=shapes, rank=8, lora_alpha=32)
    answer = load(adapted, folder, lora_name="legal")
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message.endswith("Put the config.json of the base model into the adapter's folder.")
    assert str(tmp_path) not in message
    (folder / "config.json").write_text(json.dumps(SMOLLM2))
    assert load(adapted, folder, lora_name="legal").status_code == 200
    assert text(adapted, "smollm2::legal") != text(adapted, "smollm2")
    assert adapted.get("/lora-adapters?model=smollm2").json()[1]["path"] == "legal"
    cases = {
        "architecture 'llama', but its base model has 'gemma3'": load(
            adapted, folder, lora_name="x", base_model_name="google/gemma3"
        ),
        "'peft_type' is 'IA3'": load(adapted, write_peft(tmp_path / "ia3", peft_type="IA3"), lora_name="x"),
        "it has no adapter_config.json": load(adapted, tmp_path, lora_name="x"),
        "Name their folder": load(adapted, folder / "adapter_model.safetensors", lora_name="x"),
    }
    for reason, refused in cases.items():
        assert refused.status_code == 400, refused.text
        message = refused.json()["error"]["message"]
        assert reason in message
        assert str(tmp_path) not in message
    assert adapted.post("/v1/unload_lora_adapter", {"lora_name": "legal"}).status_code == 200
