"""GET /props and /slots of llama.cpp's server. They load no model.

Source: llama.cpp, tools/server/README.md.
"""

from __future__ import annotations

from typing import NoReturn

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.llama_cpp.prompts import MEDIA_MARKER
from modelyard.api.llama_cpp.settings import generation_settings
from modelyard.api.middleware.authorization import needs
from modelyard.api.openapi.answers_llama_cpp import ServerProperties, Slot
from modelyard.api.services import Services
from modelyard.config import running_at_once
from modelyard.errors import NoFreeSlot, UnsupportedOperation
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Sampling, Text
from modelyard.version import __version__
from modelyard.yard.requests.requests import Request
from modelyard.yard.stats.status import ModelStatus

router = APIRouter()


def properties_object(model: ModelStatus, profile: ModelProfile | None, slots: int) -> ServerProperties:
    """Return the properties of a model; those that are only known once it was loaded are empty before.

    The path of its file stays private: ``model_path`` is the model's id.
    """
    sampling = Sampling() if profile is None else profile.sampling
    settings = generation_settings(Request(Text("")), sampling, n_predict=-1, is_stream=True)
    return {
        "default_generation_settings": {"n_ctx": model.context_length, "params": settings},
        "total_slots": slots,
        "model_alias": model.id,
        "model_path": model.id,
        "modalities": {"vision": bool(model.can_see), "audio": bool(model.can_hear)},
        "media_marker": MEDIA_MARKER,
        "chat_template": "" if profile is None else profile.chat_template,
        "bos_token": "" if profile is None else profile.begin_token,
        "eos_token": "" if profile is None else profile.end_token,
        "build_info": f"modelyard-{__version__}",
        "is_sleeping": model.status == "unloaded",
    }


def slot_objects(context_length: int | None, slots: int, running: int) -> list[Slot]:
    """Return a slot for each answer that a model computes at the same time, the busy ones first."""
    return [
        {"id": number, "n_ctx": context_length, "speculative": False, "is_processing": number < running}
        for number in range(slots)
    ]


@router.get("/props")
async def properties(http: HttpRequest, model: str | None = None) -> Response:
    """Properties of a model; without `model`, of the default model."""
    yard = Services.of(http).yard
    configured = yard.configured(model)
    status, profile = yard.model(configured.id), yard.profile(configured.id)
    found = properties_object(status, profile, running_at_once(yard.config, configured))
    return Response(orjson.dumps(found), media_type="application/json")


@router.get("/slots")
async def slots(http: HttpRequest, model: str | None = None, fail_on_no_slot: str | None = None) -> Response:
    """The answers that a model computes at the same time, and which of them are in use."""
    yard = Services.of(http).yard
    configured = yard.configured(model)
    count = running_at_once(yard.config, configured)
    running = sum(metrics.running for metrics in yard.monitor.metrics().models if metrics.model == configured.id)
    if fail_on_no_slot not in (None, "0", "false") and running >= count:
        raise NoFreeSlot(configured.id, running)
    found = slot_objects(yard.model(configured.id).context_length, count, running)
    return Response(orjson.dumps(found), media_type="application/json")


@router.post("/props", include_in_schema=False, response_model=None)
@router.post("/slots/{slot}", include_in_schema=False, response_model=None)
@needs("admin", all_models=True)
async def refuse(http: HttpRequest) -> NoReturn:
    """Answer 400, whatever was sent."""
    raise UnsupportedOperation(
        f"POST {http.url.path} is not served. Settings are changed in the configuration, which POST /v1/config/reload "
        "reads again; prompts are kept and found again without slots.",
    )
