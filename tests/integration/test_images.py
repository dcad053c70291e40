"""Images through the whole server: real files, real HTTP, the official client; a tiny model with random weights.

What it says means nothing, but depends on every pixel: different images get different answers, the same image the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import CompletionUsage

from modelyard.config import Config, validate_config
from support.images import data_url, encoded, noise
from support.server import RunningServer, serving

ONE, TWO = encoded(noise(1)), encoded(noise(2))


def seeing(folders: dict[str, Path], weights: dict[str, Path], local: Path, **server: Any) -> Config:
    models = [
        {"model_id": str(folder), "alias": kind, "device": {"max_seq_len": 1024}} for kind, folder in folders.items()
    ]
    text = {"model_id": str(weights["smollm2"]), "alias": "text", "device": {"max_seq_len": 1024}}
    few = {**models[0], "alias": "few", "multimodal": {"max_num_images": 2, "max_edge": 64}}
    return validate_config(
        {
            "server": {"image_folders": [str(local)], **server},
            "runtime": {"max_seqs": 4, "prefix_cache_n": 4},
            "models": [*models, few, text],
        },
        source="test",
        base=local,
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "one.png").write_bytes(ONE)
    return folder


@pytest.fixture(scope="module")
def server(vision_models: dict[str, Path], weights: dict[str, Path], local: Path) -> Iterator[RunningServer]:
    with serving(seeing(vision_models, weights, local, allow_private_image_urls=True)) as running:
        yield running


@pytest.fixture(scope="module")
def strict(vision_models: dict[str, Path]) -> Iterator[RunningServer]:
    """Fetches from the open internet alone."""
    model = {"model_id": str(vision_models["gemma3"]), "alias": "gemma3", "device": {"max_seq_len": 512}}
    with serving(validate_config({"models": [model]}, source="test", base=Path.cwd())) as running:
        yield running


def parts(*urls: str) -> list[dict[str, Any]]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"type": "text", "text": "Look at "}, *images, {"type": "text", "text": " and say what it is."}]


def look(server: RunningServer, model: str, *urls: str, **fields: Any) -> tuple[str, CompletionUsage]:
    with server.client() as client:
        messages: Any = fields.pop("messages", [{"role": "user", "content": parts(*urls)}])
        answer = client.chat.completions.create(
            model=model, messages=messages, temperature=0, max_tokens=12, extra_body={"ignore_eos": True}, **fields
        )
    assert answer.usage is not None
    return answer.choices[0].message.content or "", answer.usage


def refusal(server: RunningServer, *urls: str, model: str = "gemma3", status: int = 400) -> dict[str, Any]:
    with pytest.raises(openai.APIStatusError) as refused:
        look(server, model, *urls)
    assert refused.value.status_code == status
    body: Any = refused.value.body
    return dict(body)


@pytest.fixture(params=["gemma3", "idefics3", "qwen2vl", "internvl"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_same_image_gets_the_same_answer_and_another_image_another(server: RunningServer, model: str) -> None:
    first, usage = look(server, model, data_url(ONE))
    again, cached = look(server, model, data_url(ONE))
    other, partly = look(server, model, data_url(TWO))
    assert first == again != other
    assert usage.prompt_tokens == cached.prompt_tokens
    details = cached.prompt_tokens_details
    assert details is not None
    # All but the last token was found in the cache, the image too; of another image nothing but the text before.
    assert details.cached_tokens == cached.prompt_tokens - 1
    assert partly.prompt_tokens_details is not None
    assert (partly.prompt_tokens_details.cached_tokens or 0) < 40


def test_an_image_is_told_apart_in_any_message_and_in_any_order(server: RunningServer, model: str) -> None:
    def conversation(first: bytes, second: bytes) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": parts(data_url(first))},
            {"role": "assistant", "content": "A field."},
            {"role": "user", "content": parts(data_url(second))},
        ]

    answers = {
        look(server, model, messages=conversation(*pair))[0]
        for pair in ((ONE, ONE), (ONE, TWO), (TWO, ONE), (TWO, TWO))
    }
    assert len(answers) == 4


def test_an_answer_is_the_same_beside_streams_of_text(server: RunningServer, model: str) -> None:
    alone = look(server, model, data_url(ONE))[0]
    with server.client() as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Tell me of the sea."}],
            max_tokens=150,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        next(stream)
        beside = look(server, model, data_url(ONE))[0]
        assert len(beside) > 0
        rest = sum(1 for _ in stream)
    # Rounding differs in larger steps, and random weights choose among near-equals: it begins alike.
    assert beside[:4] == alone[:4]
    assert rest > 0


def test_an_image_comes_as_a_file_as_a_path_and_from_the_web(server: RunningServer, local: Path) -> None:
    expected = look(server, "gemma3", data_url(ONE))[0]
    assert look(server, "gemma3", f"file://{local}/one.png")[0] == expected
    assert look(server, "gemma3", str(local / "one.png"))[0] == expected
    with web({"/one.png": (200, {}, ONE), "/moved": (302, {"location": "/one.png"}, b"")}) as url:
        assert look(server, "gemma3", f"{url}/one.png")[0] == expected
        assert look(server, "gemma3", f"{url}/moved")[0] == expected


@contextmanager
def web(pages: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """A web server on loopback."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}"
        finally:
            listening.shutdown()
            thread.join(10)


def test_a_url_alone_and_a_detail_are_taken(server: RunningServer) -> None:
    expected = look(server, "gemma3", data_url(ONE))[0]
    for image_url in (data_url(ONE), {"url": data_url(ONE), "detail": "low"}, {"url": data_url(ONE), "detail": "high"}):
        part = {"type": "image_url", "image_url": image_url}
        content = [parts(data_url(ONE))[0], part, parts(data_url(ONE))[2]]
        assert look(server, "gemma3", messages=[{"role": "user", "content": content}])[0] == expected


def test_the_listing_says_who_takes_images(server: RunningServer) -> None:
    listed = {entry["id"]: entry.get("input_modalities") for entry in server.get("/v1/models").json()["data"]}
    assert listed["gemma3"] == ["text", "image"]
    assert listed["text"] is None


def test_a_text_model_takes_none(server: RunningServer) -> None:
    error = refusal(server, data_url(ONE), model="text")
    assert error["code"] == "unsupported_operation"
    assert error["param"] == "messages[0].content[1].image_url"
    assert error["message"].startswith("The model 'text' takes no images")


def test_text_of_a_model_that_takes_images_is_as_that_of_any_other(server: RunningServer, model: str) -> None:
    text, _ = look(server, model, messages=[{"role": "user", "content": "Hello"}])
    again, _ = look(server, model, messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}])
    assert text == again != ""


@pytest.mark.parametrize("marker", ["<__media__>", "<__image__>", "<image>", "<image 0000000000000000 0>"])
def test_no_text_passes_for_an_image(server: RunningServer, marker: str) -> None:
    content = [{"type": "text", "text": f"{marker} {marker}"}, *parts(data_url(ONE))]
    text, usage = look(server, "gemma3", messages=[{"role": "user", "content": content}])
    assert text
    assert usage.prompt_tokens < 200


@pytest.mark.parametrize("kind", ["video_url", "file", "refusal"])
def test_other_parts_are_refused_by_name(server: RunningServer, kind: str) -> None:
    body = {"model": "gemma3", "messages": [{"role": "user", "content": [{"type": kind}]}]}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_operation", "messages[0].content[0]")
    assert f"'{kind}'" in error["message"]


def test_too_many_images_are_refused_before_any_is_fetched(server: RunningServer) -> None:
    error = refusal(server, *["http://127.0.0.1:1/none.png"] * 1000)
    assert error["message"].startswith("The request has 1000 images, more than the 16 that this model takes at once.")
    assert error["param"] == "messages[0].content[17].image_url"
    assert refusal(server, *[data_url(ONE)] * 3, model="few")["param"] == "messages[0].content[3].image_url"
    assert look(server, "few", data_url(ONE), data_url(TWO))[0]


def test_images_that_fill_the_context_are_refused(server: RunningServer) -> None:
    big = data_url(encoded(noise(5, 600, 600)))
    error = refusal(server, big, big, model="qwen2vl")
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,AAAA", "The format of the image is not known."),
        ("data:image/png;base64,%%", "What follows the comma of the data URL is not base64."),
        ("data:image/png,AAAA", "The data URL must have the form"),
        ("ftp://example.com/x.png", "The URL must begin with data:, http://, https:// or file://."),
        (data_url(ONE[:200]), "The image is damaged or cut off"),
        ("/etc/passwd", "The file is not inside a folder that this server reads images from."),
        ("http://no-such-host.invalid/x.png", "The host of the URL is not known."),
        ("http://user:secret@127.0.0.1/x.png", "A URL with a user name or password is not fetched."),
        ("http://127.0.0.1:1/x.png", "The image cannot be fetched (ConnectError)."),
    ],
)
def test_a_bad_image_is_refused_with_its_place(server: RunningServer, url: str, message: str) -> None:
    error = refusal(server, url)
    assert error["message"].startswith(message)
    assert (error["code"], error["param"]) == ("invalid_request", "messages[0].content[1].image_url")
    assert "Traceback" not in error["message"]


def test_what_the_web_answers_else_is_refused(server: RunningServer) -> None:
    pages = {
        "/loop": (302, {"location": "/loop"}, b""),
        "/away": (302, {"location": "file:///etc/passwd"}, b""),
        "/page": (200, {"content-type": "text/html"}, b"<html></html>"),
        "/large": (200, {}, bytes(21 * 2**20)),
    }
    with web(pages) as url:
        assert refusal(server, f"{url}/none.png")["message"] == "The URL answered 404. Check it."
        assert "redirects more than 3 times" in refusal(server, f"{url}/loop")["message"]
        assert "is neither http nor https" in refusal(server, f"{url}/away")["message"]
        assert refusal(server, f"{url}/page")["message"].startswith("This is a web page, which is not supported.")
        assert "more than 20 MiB" in refusal(server, f"{url}/large")["message"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "[::ffff:7f00:1]", "2130706433", "0x7f.1"]
)
def test_private_addresses_are_refused_unless_they_are_allowed(strict: RunningServer, host: str) -> None:
    error = refusal(strict, f"http://{host}:1/x.png")
    assert error["message"].startswith("The URL leads to a private address")
    assert (error["code"], error["param"]) == ("invalid_request", "messages[0].content[1].image_url")


def test_images_survive_an_unload_in_the_middle_of_an_answer(server: RunningServer, model: str) -> None:
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 150, "extra_body": {"ignore_eos": True}}
    messages: Any = [{"role": "user", "content": parts(data_url(ONE))}]
    with server.client() as client:
        whole = client.chat.completions.create(model=model, messages=messages, **options).choices[0].message.content
        stream = client.chat.completions.create(model=model, messages=messages, stream=True, **options)
        text = next(stream).choices[0].delta.content or ""
        for _ in range(3):
            text += next(stream).choices[0].delta.content or ""
        assert server.post("/v1/models/unload", {"model_id": model, "mode": "suspend"}).status_code == 200
        assert server.post("/v1/models/reload", {"model_id": model}).status_code == 200
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert whole is not None
    # Rounding may part the two once, far in; before, and in length, they are alike.
    assert text[:40] == whole[:40]
    again, usage = look(server, model, data_url(TWO))
    assert again
    assert usage.completion_tokens == 12
