"""POST /v1/audio/transcriptions and /v1/audio/translations; speech and pictures that are to be made are refused."""

from __future__ import annotations

from typing import Literal

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.media.load import MediaLoader
from modelyard.api.openai.audio.frames import SpeechFrames
from modelyard.api.openai.audio.languages import language_name
from modelyard.api.openai.audio.prompts import Task, speech_prompt
from modelyard.api.openai.audio.schema import SpeechBody, TranscriptionBody, TranslationBody
from modelyard.api.serving.form import FormRoute
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.streaming import ChoiceRequest, respond, whole_answer
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.prompts import Audio, media_of
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard


def audio_routes(yard: Yard, media: MediaLoader) -> APIRouter:
    """The endpoints for speech on ``yard``."""
    router = APIRouter(route_class=FormRoute)

    @router.post("/v1/audio/transcriptions", response_model=None)
    async def create_transcription(body: TranscriptionBody, http: HttpRequest) -> Response:
        """Write down what is spoken, whole or as a stream."""
        return await _speech(yard, media, body, body.task(), http, stream=bool(body.stream))

    @router.post("/v1/audio/translations", response_model=None)
    async def create_translation(body: TranslationBody, http: HttpRequest) -> Response:
        """Write down in English what is spoken."""
        return await _speech(yard, media, body, body.task(), http, stream=False)

    return router


async def _speech(
    yard: Yard, media: MediaLoader, body: SpeechBody, task: Task, http: HttpRequest, *, stream: bool
) -> Response:
    await yard.check(body.model, "text")
    senses = await yard.check_senses(body.model, image=None, sound="model")
    request = Request(
        prompt=speech_prompt(task, senses),
        model=body.model,
        sampling=body.sampling,
        max_tokens=body.max_completion_tokens,
        urgency=wait_options_of(http, body.keep_alive),
    )
    request = await media.loaded(request, http.receive)
    (clip,) = media_of(request.prompt)
    assert isinstance(clip, Audio)
    doing: Literal["transcribe", "translate"] = "translate" if task.translates else "transcribe"
    language = language_name(task.language).lower() if task.language else ""
    frames = SpeechFrames(request.prompt, doing, clip.duration_s, language, body.response_format)
    asks = [ChoiceRequest(request, frames)]
    if stream:
        return respond(yard, asks, stream=True)

    async def answer() -> bytes:
        whole, _ = await whole_answer(yard, asks)
        return f"{whole}\n".encode() if isinstance(whole, str) else orjson.dumps(whole)

    return JsonResponse(answer, "text/plain" if body.response_format == "text" else "application/json")
