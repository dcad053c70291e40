"""Several models that see beside one that does not, in one server: each has its pictures, and looks at each once."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from modelyard.config import validate_config
from support.images import data_url, encoded, noise
from support.server import WAIT_S, RunningServer, serving

KINDS = ("gemma3", "idefics3", "qwen2vl", "internvl")
TILED = ("idefics3", "internvl")
WIDE = encoded(noise(3, 640, 64))


@pytest.fixture(scope="module")
def server(vision_models: dict[str, Path], weights: dict[str, Path]) -> Iterator[RunningServer]:
    models = [{"model_id": str(vision_models[kind]), "alias": kind, "device": {"max_seq_len": 1024}} for kind in KINDS]
    text = {"model_id": str(weights["smollm2"]), "alias": "text", "device": {"max_seq_len": 512}}
    # Nothing here loads it.
    unread = {**text, "alias": "unread", "load": "on-demand"}
    config = {
        "runtime": {"max_seqs": 4, "prefix_cache_n": 4},
        "memory": {"kv_keep": "memory"},
        "models": [*models, text, unread],
    }
    with serving(validate_config(config, source="test")) as running:
        yield running


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asked(
    server: RunningServer, model: str, image: bytes, words: str = "What is it?", before: str = "Look: ", **url: str
) -> dict[str, Any]:
    """The whole answer about an image."""
    shown = {"type": "image_url", "image_url": {"url": data_url(image), **url}}
    content = [{"type": "text", "text": before}, shown, {"type": "text", "text": words}]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 12,
        "ignore_eos": True,
        "logprobs": True,
    }
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def look(server: RunningServer, model: str, image: bytes, **how: str) -> tuple[str, dict[str, Any]]:
    """The text about an image, and what was used for it."""
    found = asked(server, model, image, **how)
    return found["choices"][0]["message"]["content"], found["usage"]


def first_logprob(answer: dict[str, Any]) -> float:
    return float(answer["choices"][0]["logprobs"]["content"][0]["logprob"])


def pictures(server: RunningServer) -> dict[str, tuple[int, int]]:
    """Pictures that each model encoded, and pictures shown again without that, once none has anything to do."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        metrics = server.get("/metrics").text
        if not any(values(metrics, "modelyard_sequences_running").values()):
            reused = values(metrics, "modelyard_pictures_reused_total")
            counts = values(metrics, "modelyard_pictures_encoded_total")
            return {model: (count, reused[model]) for model, count in counts.items()}
        time.sleep(0.02)
    raise AssertionError("some model is busy")


def values(metrics: str, name: str) -> dict[str, int]:
    """A metric, by model."""
    found = re.findall(rf'^{name}{{model="(.+)"}} (\S+)$', metrics, re.MULTILINE)
    return {model: int(float(number)) for model, number in found}


# Detail


def test_little_detail_is_one_overview_where_the_projector_has_tiles(server: RunningServer, model: str) -> None:
    picture = encoded(noise(1))
    answers = {detail: look(server, model, picture, detail=detail) for detail in ("auto", "low", "high", "original")}
    tokens = {detail: usage["prompt_tokens"] for detail, (_, usage) in answers.items()}
    assert answers["auto"][0] == answers["high"][0] == look(server, model, picture)[0]
    assert tokens["auto"] == tokens["high"] == tokens["original"]
    if model in TILED:
        # Four tiles of 16 tokens less, and what stands between them.
        assert tokens["low"] <= tokens["high"] - 64
        assert answers["low"][0] != answers["high"][0]
    else:
        assert answers["low"][0] == answers["high"][0]
        assert tokens["low"] == tokens["high"]
    assert look(server, model, encoded(noise(2)), detail="low")[0] != answers["low"][0]


def test_little_detail_is_fewer_pixels_where_their_number_is_free(server: RunningServer) -> None:
    tokens = {detail: look(server, "qwen2vl", WIDE, detail=detail)[1]["prompt_tokens"] for detail in ("low", "high")}
    # Of 512 x 51 pixels, and of 640 x 64, where a token has 8 x 8.
    assert tokens["high"] - tokens["low"] == 80 * 8 - 64 * 6


def test_the_responses_api_passes_the_detail_on(server: RunningServer) -> None:
    def tokens(detail: str | None) -> int:
        image = {"type": "input_image", "image_url": data_url(encoded(noise(1))), "detail": detail}
        body = {"model": "idefics3", "input": [{"role": "user", "content": [image]}], "max_output_tokens": 1}
        answer = server.post("/v1/responses", body)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["usage"]["input_tokens"])

    assert tokens("low") <= tokens("high") - 64
    assert tokens("auto") == tokens("high") == tokens("original") == tokens(None)


# Each picture once


def test_a_picture_is_encoded_once_for_all_requests(server: RunningServer, model: str) -> None:
    picture = encoded(noise(10))
    encoded_before, reused_before = pictures(server)[model]
    first = asked(server, model, picture)
    encoded_once, reused = pictures(server)[model]
    tiles = 5 if model in TILED else 1
    assert (encoded_once - encoded_before, reused) == (tiles, reused_before)
    # Its cells are there: it is not even shown again.
    look(server, model, picture, words="And then?")
    assert pictures(server)[model] == (encoded_once, reused)
    # Behind other words its cells are of no use, but what it was encoded to is.
    _, other = look(server, model, picture, before="Now look at this one: ")
    assert other["prompt_tokens_details"]["cached_tokens"] < first["usage"]["prompt_tokens"] / 2
    assert pictures(server)[model] == (encoded_once, reused + tiles)
    # Texts may part where two words are nearly equally likely: a fuller cache has other kernels on some processors.
    shown = pytest.approx(first_logprob(first), abs=0.05)
    assert first_logprob(asked(server, model, picture)) == shown
    assert first_logprob(asked(server, model, encoded(noise(13)))) != shown


def test_two_requests_at_once_encode_the_same_picture_once(server: RunningServer, model: str) -> None:
    picture = encoded(noise(11))
    encoded_before, reused_before = pictures(server)[model]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda before: look(server, model, picture, before=before), ("One: ", "Another: ")))
    assert all(text for text, _ in answers)
    tiles = 5 if model in TILED else 1
    assert pictures(server)[model] == (encoded_before + tiles, reused_before + tiles)


def test_the_next_turn_after_an_unload_needs_no_projector(server: RunningServer, model: str) -> None:
    picture = encoded(noise(12))
    _, usage = look(server, model, picture)
    before = pictures(server)[model]
    assert server.post("/v1/models/unload", {"model_id": model}).status_code == 200
    _, again = look(server, model, picture, words="And then?")
    # The prompts are kept in memory, with the picture in them.
    assert again["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] - 20
    assert pictures(server)[model] == before


# Each model its own


def test_a_text_model_refuses_pictures_without_being_loaded(server: RunningServer) -> None:
    body = {
        "model": "unread",
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(WIDE)}}]}],
    }
    error = server.post("/v1/chat/completions", body)
    assert error.status_code == 400
    assert error.json()["error"]["message"].startswith("The model 'unread' takes no images")
    status = {entry["id"]: entry["status"] for entry in server.get("/v1/models").json()["data"]}
    assert (status["unread"], status["text"]) == ("unloaded", "loaded")


def test_models_answer_side_by_side_as_they_do_alone(server: RunningServer) -> None:
    shown = {(kind, seed): encoded(noise(seed, 60 + seed, 40)) for kind in KINDS for seed in (20, 21)}
    alone = {(kind, seed): look(server, kind, picture)[0] for (kind, seed), picture in shown.items()}
    # The same picture is not the same to two models, and two pictures are not the same to one.
    assert len(set(alone.values())) == len(alone)
    told = text_of(server)
    is_over = threading.Event()

    def ask(kind: str) -> list[str]:
        return [look(server, kind, shown[kind, seed])[0] for _ in range(2) for seed in (20, 21)]

    def unload() -> int:
        times = 0
        for kind in KINDS:
            times += server.post("/v1/models/unload", {"model_id": kind}).status_code == 200
            is_over.wait(0.2)
        return times

    with ThreadPoolExecutor(len(KINDS) + 2) as pool:
        unloads = pool.submit(unload)
        texts = pool.submit(lambda: [text_of(server) for _ in range(6)])
        asked = {kind: pool.submit(ask, kind) for kind in KINDS}
        try:
            answers = {kind: future.result(WAIT_S) for kind, future in asked.items()}
            assert texts.result(WAIT_S) == [told] * 6
        finally:
            is_over.set()
        assert unloads.result(WAIT_S) > 0
    assert answers == {kind: [alone[kind, seed] for _ in range(2) for seed in (20, 21)] for kind in KINDS}
    assert pictures(server)["text"] == (0, 0)


def text_of(server: RunningServer) -> str:
    body = {"model": "text", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 12}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_picture_touches_no_projector_but_its_models(server: RunningServer, model: str) -> None:
    before = pictures(server)
    look(server, model, encoded(noise(30 + KINDS.index(model))))
    text_of(server)
    after = pictures(server)
    assert [other for other in after if after[other] != before[other]] == [model]


# Odd pictures


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 2), (17, 300)])
def test_the_smallest_and_thinnest_pictures_are_answered(
    server: RunningServer, model: str, size: tuple[int, int]
) -> None:
    for detail in ("low", "high"):
        text, usage = look(server, model, saved(Pillow.new("RGB", size, "red"), "PNG"), detail=detail)
        assert text
        assert usage["completion_tokens"] == 12


def test_a_picture_is_the_same_in_every_file(server: RunningServer, model: str) -> None:
    picture, other = (Pillow.frombytes("RGB", (64, 48), noise(seed).pixels) for seed in (40, 41))
    expected = look(server, model, saved(picture, "PNG"))[0]
    turned = Pillow.Exif()
    turned[0x0112] = 6
    lying = picture.transpose(Pillow.Transpose.ROTATE_90)
    files = {
        "bmp": saved(picture, "BMP"),
        "webp": saved(picture, "WEBP", lossless=True),
        "webp, animated": saved(picture, "WEBP", lossless=True, save_all=True, append_images=[other]),
        "png, animated": saved(picture, "PNG", save_all=True, append_images=[other]),
        "png, turned": saved(lying, "PNG", exif=turned),
        "webp, turned": saved(lying, "WEBP", lossless=True, exif=turned),
        "png, with alpha": saved(picture.convert("RGBA"), "PNG"),
    }
    answers = {name: look(server, model, data)[0] for name, data in files.items()}
    assert answers == dict.fromkeys(files, expected)
    first = saved(picture, "AVIF", quality=100, subsampling="4:4:4")
    both = saved(picture, "AVIF", quality=100, subsampling="4:4:4", save_all=True, append_images=[other])
    assert look(server, model, first)[0]
    assert look(server, model, both)[0]


def test_a_picture_of_20000_pixels_is_answered(server: RunningServer) -> None:
    panorama = Pillow.new("RGB", (20_000, 1_000), "red")
    assert look(server, "gemma3", saved(panorama, "JPEG"))[0]
    assert look(server, "idefics3", saved(panorama, "JPEG"))[0]
