"""Sound through the whole server: real files, real HTTP, the official client; tiny models with random weights.

What they say means nothing, but depends on every sample: different clips get different answers, the same clip the same.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import CompletionUsage

from integration.test_images import web
from modelyard.config import Config, validate_config
from support.images import data_url as image_url
from support.images import encoded, noise
from support.server import RunningServer, serving
from support.sounds import audio_file, chirp, data_url, input_audio
from support.tiny_hearing import WINDOW_TOKENS

ONE, TWO = audio_file(chirp(1.5, 1)), audio_file(chirp(1.5, 2))
PICTURE = encoded(noise(1))


def hearing(folders: dict[str, Path], eyes: Path, weights: dict[str, Path], local: Path) -> Config:
    device = {"device": {"max_seq_len": 2048}}
    ears = {"model_id": str(folders["ears"]), **device}
    return validate_config(
        {
            "server": {"audio_folders": [str(local)], "allow_private_audio_urls": True},
            "runtime": {"max_seqs": 4, "prefix_cache_n": 4},
            "models": [
                {**ears, "alias": "ears"},
                {"model_id": str(folders["both"]), "alias": "both", "load": "on-demand", **device},
                {
                    **ears,
                    "alias": "few",
                    "load": "on-demand",
                    "multimodal": {"max_num_audios": 1, "max_audio_seconds": 2},
                },
                {"model_id": str(eyes), "alias": "eyes", "load": "on-demand", **device},
                {**ears, "alias": "later", "load": "on-demand"},
                {"model_id": str(weights["smollm2"]), "alias": "text", "load": "on-demand"},
            ],
        },
        source="test",
        base=local,
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "one.wav").write_bytes(ONE)
    return folder


@pytest.fixture(scope="module")
def server(
    hearing_models: dict[str, Path], vision_models: dict[str, Path], weights: dict[str, Path], local: Path
) -> Iterator[RunningServer]:
    with serving(hearing(hearing_models, vision_models["gemma3"], weights, local)) as running:
        yield running


def audio_part(url: str) -> dict[str, Any]:
    return {"type": "audio_url", "audio_url": {"url": url}}


def picture_part() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image_url(PICTURE)}}


def listen(server: RunningServer, model: str, *parts: dict[str, Any], **fields: Any) -> tuple[str, CompletionUsage]:
    content = [{"type": "text", "text": "Listen to "}, *parts, {"type": "text", "text": " and say what it is."}]
    messages: Any = fields.pop("messages", [{"role": "user", "content": content}])
    tokens: int = fields.pop("max_tokens", 12)
    with server.client() as client:
        answer = client.chat.completions.create(
            model=model, messages=messages, temperature=0, max_tokens=tokens, extra_body={"ignore_eos": True}, **fields
        )
    assert answer.usage is not None
    return answer.choices[0].message.content or "", answer.usage


def refusal(server: RunningServer, model: str, *parts: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(openai.BadRequestError) as refused:
        listen(server, model, *parts)
    body: Any = refused.value.body
    return dict(body)


def cached(usage: CompletionUsage) -> int:
    assert usage.prompt_tokens_details is not None
    return usage.prompt_tokens_details.cached_tokens or 0


@pytest.mark.parametrize("model", ["ears", "both"])
def test_the_same_clip_gets_the_same_answer_and_another_clip_another(server: RunningServer, model: str) -> None:
    first, usage = listen(server, model, input_audio(ONE))
    again, found = listen(server, model, input_audio(ONE))
    other, partly = listen(server, model, input_audio(TWO))
    assert first == again != other
    assert WINDOW_TOKENS < usage.prompt_tokens < WINDOW_TOKENS + 100
    # All but the last token was found in the cache, the clip too; of another clip nothing but the text before.
    assert cached(found) == usage.prompt_tokens - 1
    assert cached(partly) < 40


def test_clips_are_told_apart_in_any_order_and_beside_an_image(server: RunningServer) -> None:
    one, two = input_audio(ONE), input_audio(TWO)
    answers = {listen(server, "both", *parts)[0] for parts in ((one, two), (two, one), (one, picture_part()), (one,))}
    assert len(answers) == 4


def test_a_long_clip_is_heard_in_windows_whose_beginnings_are_found_again(server: RunningServer) -> None:
    sound = chirp(35, 3)
    whole, usage = listen(server, "ears", input_audio(audio_file(sound)))
    assert 2 * WINDOW_TOKENS < usage.prompt_tokens < 2 * WINDOW_TOKENS + 100
    other = sound.copy()
    other[-8000:] = chirp(0.5, 4)
    answer, partly = listen(server, "ears", input_audio(audio_file(other)))
    assert answer != whole
    assert WINDOW_TOKENS < cached(partly) < WINDOW_TOKENS + 60


def test_a_clip_that_fills_its_window_is_one_window(server: RunningServer) -> None:
    _, usage = listen(server, "ears", input_audio(audio_file(chirp(30))))
    assert usage.prompt_tokens < WINDOW_TOKENS + 100


def test_a_clip_comes_in_every_form(server: RunningServer, local: Path) -> None:
    def heard(part: dict[str, Any]) -> str:
        # Random weights leave tokens nearly equally likely: what else the cache holds decides between them further on.
        return listen(server, "ears", part, max_tokens=4)[0]

    expected = heard(input_audio(ONE))
    assert heard(input_audio(TWO)) != expected
    flac = audio_file(chirp(1.5, 1), kind="FLAC")
    ways = [
        audio_part(data_url(ONE)),
        audio_part(data_url(flac, "flac")),
        {"type": "audio_url", "audio_url": data_url(ONE)},
        {"type": "input_audio", "input_audio": {"data": data_url(ONE), "format": "wav"}},
        audio_part(f"file://{local}/one.wav"),
        audio_part(str(local / "one.wav")),
    ]
    assert {heard(way) for way in ways} == {expected}
    with web({"/one.wav": (200, {}, ONE), "/moved": (302, {"location": "/one.wav"}, b"")}) as url:
        assert heard(audio_part(f"{url}/one.wav")) == expected
        assert heard(audio_part(f"{url}/moved")) == expected


def test_an_answer_is_the_same_beside_streams_of_text(server: RunningServer) -> None:
    alone = listen(server, "ears", input_audio(ONE))[0]
    with server.client() as client:
        stream = client.chat.completions.create(
            model="ears",
            messages=[{"role": "user", "content": "Tell me of the sea."}],
            max_tokens=100,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        next(stream)
        beside = listen(server, "ears", input_audio(ONE))[0]
        assert sum(1 for _ in stream) > 0
    # Rounding differs in larger steps, and random weights choose among near-equals: it begins alike.
    assert beside[:4] == alone[:4]


def test_a_suspended_stream_with_sound_goes_on(server: RunningServer) -> None:
    messages: Any = [{"role": "user", "content": [input_audio(TWO), {"type": "text", "text": "Go on."}]}]
    fields: Any = {"messages": messages, "temperature": 0, "max_tokens": 60, "extra_body": {"ignore_eos": True}}
    with server.client() as client:
        whole = client.chat.completions.create(model="ears", **fields).choices[0].message.content
        stream = client.chat.completions.create(model="ears", stream=True, **fields)
        text = "".join(next(stream).choices[0].delta.content or "" for _ in range(4))
        assert server.post("/v1/models/unload", {"model_id": "ears", "mode": "suspend"}).status_code == 200
        assert server.post("/v1/models/reload", {"model_id": "ears"}).status_code == 200
        text += "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert whole is not None
    # Rounding may part the two once, far in.
    assert text[:40] == whole[:40]


def test_what_a_model_does_not_take_is_refused_before_it_is_loaded(server: RunningServer) -> None:
    for model, part, what, able in (
        ("text", input_audio(ONE), "sound", "ears, both, few, later"),
        ("eyes", input_audio(ONE), "sound", "ears, both, few, later"),
        ("later", picture_part(), "images", "both, eyes"),
    ):
        error = refusal(server, model, part)
        assert error["code"] == "unsupported_operation"
        assert error["param"].startswith("messages[0].content[1].")
        assert f"The model '{model}' takes no {what}" in error["message"]
        assert f"Models that take {what}: {able}." in error["message"]
        assert server.post("/v1/models/status", {"model_id": model}).json()["status"] == "unloaded"
    # Of a model that is loaded the engine says so.
    assert refusal(server, "ears", picture_part())["code"] == "unsupported_operation"


def test_limits_and_faults_are_told_with_their_place(server: RunningServer) -> None:
    place = "messages[0].content[2].input_audio.data"
    few = refusal(server, "few", input_audio(ONE), input_audio(TWO))
    assert (few["param"], few["code"]) == (place, "invalid_request")
    assert "max_num_audios" in few["message"]
    assert "max_audio_seconds" in refusal(server, "few", input_audio(audio_file(chirp(3))))["message"]
    assert "is not base64" in refusal(server, "ears", {"type": "input_audio", "input_audio": {"data": "?"}})["message"]
    assert "a PNG image" in refusal(server, "ears", input_audio(PICTURE))["message"]
    assert refusal(server, "ears", audio_part("/etc/passwd"))["message"].endswith("reads audio from.")
    assert (
        "too much"
        in refusal(server, "ears", *[input_audio(audio_file(chirp(31, seed))) for seed in range(2)])["message"]
    )


@pytest.mark.parametrize("part", [{"type": "input_audio"}, {"type": "audio_url"}])
def test_a_part_without_its_sound_is_refused(server: RunningServer, part: dict[str, Any]) -> None:
    assert f"must have '{part['type']}'" in refusal(server, "ears", part)["message"]


def test_listings_tell_what_models_take_before_they_are_loaded(server: RunningServer) -> None:
    # Whose files nobody has looked at yet is looked at where it would be named.
    assert refusal(server, "text", input_audio(ONE))["code"] == "unsupported_operation"
    listed = {model["id"]: model.get("input_modalities") for model in server.get("/v1/models").json()["data"]}
    assert listed["ears"] == listed["later"] == ["text", "audio"]
    assert listed["both"] == ["text", "image", "audio"]
    assert listed["text"] is None
    assert "audio" in server.post("/api/show", {"model": "later"}).json()["capabilities"]


def test_other_dialects_hear_the_same(server: RunningServer) -> None:
    words = "What is it?"
    chat = [input_audio(ONE), {"type": "text", "text": words}]
    body = {"model": "ears", "messages": [{"role": "user", "content": chat}], "max_tokens": 8, "temperature": 0}
    expected = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    parts = [input_audio(ONE), {"type": "input_text", "text": words}]
    response = server.post(
        "/v1/responses",
        {
            "model": "ears",
            "input": [{"role": "user", "content": parts}],
            "max_output_tokens": 8,
            "temperature": 0,
        },
    ).json()
    assert response["output"][0]["content"][0]["text"] == expected
    turn = {"role": "user", "content": words, "images": [base64.b64encode(ONE).decode()]}
    options = {"num_predict": 8, "temperature": 0}
    ollama = server.post("/api/chat", {"model": "ears", "messages": [turn], "stream": False, "options": options}).json()
    assert ollama["message"]["content"] == expected


def test_a_prompt_with_sound_is_counted(server: RunningServer) -> None:
    messages = [{"role": "user", "content": [input_audio(ONE), {"type": "text", "text": "What is it?"}]}]
    told = server.post("/v1/tokenize", {"model": "ears", "messages": messages}).json()
    assert told["tokens"].count(-1) == WINDOW_TOKENS


def test_odd_clips_are_answered(server: RunningServer) -> None:
    for samples, rate in (
        (np.zeros(16_000, np.float32), 16_000),
        (np.stack([chirp(1, seed, 192_000) for seed in range(8)], axis=1), 192_000),
        (chirp(0.1), 16_000),
        (chirp(1, rate=8_000), 8_000),
    ):
        assert listen(server, "ears", input_audio(audio_file(samples, rate, subtype="FLOAT")))[0]


def transcribe(server: RunningServer, data: bytes = ONE, task: str = "transcriptions", **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    return httpx.post(
        f"{server.url}/v1/audio/{task}",
        files={"file": ("speech.wav", data)},
        data={"model": "ears", "max_completion_tokens": "8", **fields},
        headers=headers,
        timeout=60,
    )


def test_models_that_do_not_hear_transcribe_nothing_and_are_not_loaded(server: RunningServer) -> None:
    for task in ("transcriptions", "translations"):
        for model in ("text", "eyes"):
            refused = transcribe(server, task=task, model=model)
            assert refused.status_code == 400
            error = refused.json()["error"]
            assert (error["code"], error["param"]) == ("unsupported_operation", "model")
            assert "Models that take sound: ears, both, few, later." in error["message"]
            assert server.post("/v1/models/status", {"model_id": model}).json()["status"] == "unloaded"
    assert transcribe(server, model="nobody").status_code == 404


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "srt"}, "response_format"),
        ({"response_format": "vtt"}, "response_format"),
        ({"response_format": "yaml"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"include[]": "logprobs"}, "include"),
        ({"language": "klingon"}, "language"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "perhaps"}, "stream"),
        ({"chunking_strategy": "server_vad"}, "chunking_strategy"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(server: RunningServer, fields: dict[str, str], param: str) -> None:
    refused = transcribe(server, **fields)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


def test_a_form_without_a_file_or_with_a_bad_one_is_refused(server: RunningServer) -> None:
    def message(**how: Any) -> str:
        answer = httpx.post(f"{server.url}/v1/audio/transcriptions", timeout=60, **how)
        assert answer.status_code == 400
        return str(answer.json()["error"]["message"])

    assert "'file': Field required" in message(files={"model": (None, "ears")})
    assert "must be a file" in message(files={"file": (None, "text"), "model": (None, "ears")})
    assert "multipart/form-data" in message(json={"model": "ears"})
    assert "PNG image" in transcribe(server, PICTURE).json()["error"]["message"]
    assert "The audio is empty" in transcribe(server, b"").json()["error"]["message"]
    too_large = transcribe(server, bytes(51 * 2**20))
    assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "request_too_large")


def test_headers_and_keep_alive_count_as_elsewhere(server: RunningServer) -> None:
    late = transcribe(server, model="later", headers={"prefer": "wait=0"})
    assert (late.status_code, late.json()["error"]["code"]) == (503, "model_loading")
    bad = transcribe(server, headers={"x-priority": "many"})
    assert bad.json()["error"]["param"] == "X-Priority"
    answer = transcribe(server, keep_alive="10m")
    assert answer.status_code == 200
    assert "decode;dur=" in answer.headers["server-timing"]
    server.settle()
    metrics = server.get("/metrics").text
    assert 'path="/v1/audio/transcriptions"' in metrics


def test_speech_and_pictures_are_not_made(server: RunningServer) -> None:
    for path, body in (("/v1/audio/speech", {"input": "a"}), ("/v1/images/generations", {"prompt": "a"})):
        refused = server.post(path, {"model": "ears", **body})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "unsupported_operation"
