"""The endpoints of models show engines that died."""

from __future__ import annotations

import json
from pathlib import Path

from modelyard.api.errors.rendering import error_response
from modelyard.api.openai.models import event_frame, model_object
from modelyard.errors import EngineError, HarmfulRequest
from modelyard.yard.residency.state import LoadState
from modelyard.yard.stats.status import ModelStatus
from modelyard.yard.stats.status_broadcaster import StatusChange
from support.scripted_app import scripted_app


def shown(**fields: object) -> dict[str, object]:
    unknown = dict.fromkeys(
        (
            *("kind", "context_length", "quantization", "size_bytes", "can_chat", "architecture", "dimensions"),
            *("can_see", "can_hear", "can_reason", "can_fill", "reason", "predicted_bytes", "load_s"),
        )
    )
    plain = {
        "id": "m",
        "aliases": (),
        "status": "loaded",
        "is_default": False,
        "created": 0,
        "shared_bytes": 0,
        "resident_bytes": 0,
    }
    return model_object(ModelStatus(**{**unknown, **plain, "is_pinned": False, "is_parked": False, **fields}))


def test_a_model_whose_engines_died_shows_how_many_and_why_also_while_it_serves() -> None:
    model = shown(restarts=2, last_death="signal 11", is_isolated=True)
    assert (model["status"], model["restarts"], model["last_death"]) == ("loaded", 2, "signal 11")
    assert model["isolated"] is True
    assert "error" not in model


def test_a_model_of_which_no_engine_died_shows_nothing_of_it() -> None:
    assert not {"restarts", "last_death", "isolated"} & shown().keys()


def test_an_event_of_a_death_says_how_many_there_were() -> None:
    frame = event_frame(StatusChange("m", LoadState.LOADING, restarts=2, last_death="signal 11"))
    name, data = frame.decode().strip().split("\n")
    assert name == "event: status"
    assert json.loads(data.removeprefix("data: ")) == {
        "model_id": "m",
        "status": "reloading",
        "stage": "loading",
        "restarts": 2,
        "last_death": "signal 11",
    }


def test_clients_are_told_not_to_send_a_request_again_that_ends_engines() -> None:
    harmful = error_response(HarmfulRequest("m", "signal 11", 600.0), "/v1/chat/completions")
    assert (harmful.status_code, harmful.headers["x-should-retry"]) == (500, "false")
    assert "x-should-retry" not in error_response(EngineError("m", "signal 11"), "/v1/chat/completions").headers


def test_a_model_that_is_not_treated_as_configured_shows_it() -> None:
    assert shown(is_retuned=True)["retuned"] is True
    assert "retuned" not in shown()


async def test_a_model_is_pinned_and_gets_another_priority(tmp_path: Path) -> None:
    async with scripted_app(tmp_path, lambda _: ["Hello"]) as client:
        answer = await client.post("/v1/models/retune", json={"model_id": "m", "pinned": True, "priority": 5})
        assert answer.json() == {"model_id": "m", "status": "loaded", "pinned": True, "priority": 5}
        (listed,) = (await client.get("/v1/server")).json()["models"]
        assert (listed["pinned"], listed["priority"], listed["retuned"]) == (True, 5, True)
        unpinned = await client.post("/v1/models/retune", json={"model_id": "m", "pinned": False})
        assert (unpinned.json()["pinned"], unpinned.json()["priority"]) == (False, 5)
        for wrong in ({"priority": 101}, {"priority": 1.5}, {"pinned": "yes"}):
            assert (await client.post("/v1/models/retune", json={"model_id": "m", **wrong})).status_code == 400
        assert (await client.post("/v1/models/retune", json={"model_id": "x", "pinned": True})).status_code == 404
