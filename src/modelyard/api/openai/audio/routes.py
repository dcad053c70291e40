"""POST /v1/audio/transcriptions and /v1/audio/translations."""

from __future__ import annotations

from functools import partial
from typing import Literal

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.openai.audio.encoder import SpeechEncoder
from modelyard.api.openai.audio.languages import language_name
from modelyard.api.openai.audio.prompts import Task, speech_prompt
from modelyard.api.openai.audio.schema import SpeechBody, TranscriptionBody, TranslationBody
from modelyard.api.services import Services
from modelyard.api.serving.form import FormRoute
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.streaming import ChoiceRequest, respond, whole_answer
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.prompts import Audio, media_of
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

router = APIRouter(route_class=FormRoute)


@router.post("/v1/audio/transcriptions", response_model=None)
async def create_transcription(body: TranscriptionBody, http: HttpRequest) -> Response:
    """Transcribe speech, whole or as a stream."""
    return await _speech(body, body.task(), http, stream=bool(body.stream))


@router.post("/v1/audio/translations", response_model=None)
async def create_translation(body: TranslationBody, http: HttpRequest) -> Response:
    """Translate speech into English text."""
    return await _speech(body, body.task(), http, stream=False)


async def _speech(body: SpeechBody, task: Task, http: HttpRequest, *, stream: bool) -> Response:
    services = Services.of(http)
    await services.yard.checks.check_task(body.model, "text")
    modalities = await services.yard.checks.check_modalities(body.model, image=None, sound="model")
    request = Request(
        prompt=speech_prompt(task, modalities),
        model=body.model,
        sampling=body.sampling,
        max_tokens=body.max_completion_tokens,
        wait_options=wait_options_of(http, body.keep_alive),
    )
    request = await services.media.loaded(request, http.receive)
    (clip,) = media_of(request.prompt)
    assert isinstance(clip, Audio)
    kind: Literal["transcribe", "translate"] = "translate" if task.translates else "transcribe"
    language = language_name(task.language).lower() if task.language else ""
    encoder = SpeechEncoder(request.prompt, kind, clip.duration_s, language, body.response_format)
    choice = ChoiceRequest(request, encoder)
    if stream:
        return respond(services.yard, [choice], stream=True)
    media_type = "text/plain" if body.response_format == "text" else "application/json"
    return JsonResponse(partial(_whole_speech, services.yard, choice), media_type)


async def _whole_speech(yard: Yard, choice: ChoiceRequest) -> bytes:
    """Compute the body of a whole answer: a line of text, or JSON."""
    answer, _ = await whole_answer(yard, [choice])
    return f"{answer}\n".encode() if isinstance(answer, str) else orjson.dumps(answer)
