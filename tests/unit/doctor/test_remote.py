"""Whether the servers answer that have models."""

from __future__ import annotations

from pathlib import Path

from modelyard.config import validate_config
from modelyard.doctor.remote import check_remotes, remote_facts
from support.odd_server import free_port, http_answer, odd_server


def test_each_server_is_asked_and_what_is_wrong_is_advised() -> None:
    with (
        odd_server(http_answer("200 OK", "application/json", "{}")) as well,
        odd_server(http_answer("401 Unauthorized", "application/json", "{}")) as strict,
        odd_server(http_answer("502 Bad Gateway", "text/plain", "")) as broken,
        free_port() as port,
    ):
        models = [
            {"model_id": "a", "remote": [f"{well}/v1", f"{strict}/v1"], "api_key_env": "KEY"},
            {"model_id": "b", "remote": [f"{broken}/v1", f"http://127.0.0.1:{port}/v1"]},
            {"model_id": "/here.gguf"},
        ]
        config = validate_config({"models": models}, source="test", base=Path("/"))
        facts = remote_facts(config, {"KEY": "sk-secret"})
    found = list(check_remotes(facts))
    assert [each.verdict for each in found] == ["ok", "note", "note", "note"]
    assert [each.facts["status"] for each in found] == [200, 401, 502, None]
    assert "api_key_env" in found[1].advice
    assert "sk-secret" not in str(found)


def test_without_such_models_nobody_is_asked() -> None:
    config = validate_config({"models": [{"model_id": "/here.gguf"}]}, source="test", base=Path("/"))
    assert remote_facts(config) == ()
