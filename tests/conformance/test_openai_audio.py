"""The official OpenAI client transcribes with the real server. A model of random weights says nothing that means
anything: what is proven is the shape of every answer."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent

import modelyard
from modelyard.config import validate_config
from support.server import RunningServer, serving
from support.sounds import audio_file, chirp, input_audio

ROOT = Path(__file__).resolve().parents[2]
SHORT: dict[str, Any] = {"max_completion_tokens": 12}


@pytest.fixture(scope="module")
def server(hearing_models: dict[str, Path]) -> Iterator[RunningServer]:
    models = [
        {
            "model_id": str(hearing_models["ears"]),
            "alias": "ears",
            "aliases": ["whisper-1", "gpt-4o-transcribe"],
            "device": {"max_seq_len": 2048},
        }
    ]
    keys = [{"name": "reader", "key": "reader-key", "scopes": ["read"]}]
    server = {"api_keys": ["unused"], "keys": keys}
    with serving(validate_config({"server": server, "models": models}, source="test")) as running:
        yield running


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence, where espeak-ng is installed; else a tone, which is as good for a model that understands neither."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    if espeak := shutil.which("espeak-ng"):
        subprocess.run(
            [espeak, "-w", str(path), "The quick brown fox jumps over the lazy dog."], check=True, timeout=30
        )
    else:
        path.write_bytes(audio_file(chirp(2)))
    return path


def test_a_file_is_transcribed(server: RunningServer, speech: Path) -> None:
    with server.client() as client, speech.open("rb") as file:
        answer = client.audio.transcriptions.create(model="whisper-1", file=file, language="en", extra_body=SHORT)
    assert answer.text == answer.text.strip() != ""
    assert answer.usage is not None
    assert answer.usage.type == "tokens"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 750


def test_the_program_of_the_page_on_sound_runs(
    server: RunningServer, speech: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "audio.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    program = program.replace("http://localhost:1234", server.url).replace("not-used", "unused")
    names: dict[str, Any] = {}
    monkeypatch.chdir(speech.parent)
    exec(compile(program.replace("qwen2-audio", "ears"), "audio.md", "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out.strip()


def test_the_formats_have_the_same_text(server: RunningServer, speech: Path) -> None:
    with server.client() as client:
        json = client.audio.transcriptions.create(model="ears", file=speech, extra_body=SHORT)
        text = client.audio.transcriptions.create(model="ears", file=speech, response_format="text", extra_body=SHORT)
        verbose = client.audio.transcriptions.create(
            model="ears", file=speech, response_format="verbose_json", language="en", extra_body=SHORT
        )
        raw = client.audio.transcriptions.with_raw_response.create(
            model="ears", file=speech, response_format="text", extra_body=SHORT
        )
    assert str(text).strip() == json.text != ""
    # A language that is named is part of the question.
    assert verbose.text
    assert verbose.duration == pytest.approx(2, abs=2)
    assert verbose.language == "english"
    assert verbose.usage is not None
    assert verbose.usage.seconds in (1, 2, 3, 4)
    assert raw.headers["content-type"].startswith("text/plain")


def test_a_stream_is_its_text_piece_by_piece(server: RunningServer, speech: Path) -> None:
    with server.client() as client:
        whole = client.audio.transcriptions.create(model="ears", file=speech, extra_body=SHORT)
        events = list(client.audio.transcriptions.create(model="ears", file=speech, stream=True, extra_body=SHORT))
    *deltas, done = events
    assert deltas
    assert all(isinstance(delta, TranscriptionTextDeltaEvent) for delta in deltas)
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert "".join(delta.delta for delta in deltas).strip() == done.text == whole.text  # type: ignore[union-attr]
    assert done.usage is not None
    assert whole.usage is not None
    assert done.usage.output_tokens == whole.usage.output_tokens  # type: ignore[union-attr]


async def test_the_async_client_transcribes_too(server: RunningServer, speech: Path) -> None:
    async with server.async_client() as client:
        answer = await client.audio.transcriptions.create(model="ears", file=speech, extra_body=SHORT)
        stream = await client.audio.transcriptions.create(model="ears", file=speech, stream=True, extra_body=SHORT)
        last = [event async for event in stream][-1]
    assert last.text == answer.text


# The client calls this endpoint deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_speech_is_translated(server: RunningServer, speech: Path) -> None:
    with server.client() as client:
        answer = client.audio.translations.create(model="ears", file=speech, extra_body=SHORT)
        verbose = client.audio.translations.create(
            model="ears", file=speech, response_format="verbose_json", prompt="A fox.", extra_body=SHORT
        )
    assert answer.text
    assert (verbose.language, verbose.text != "") == ("english", True)


def test_a_chat_hears(server: RunningServer, speech: Path) -> None:
    part: Any = input_audio(speech.read_bytes())
    with server.client() as client:
        answer = client.chat.completions.create(
            model="ears",
            messages=[{"role": "user", "content": [{"type": "text", "text": "What is said?"}, part]}],
            max_tokens=8,
        )
        response = client.responses.create(
            model="ears",
            input=[{"role": "user", "content": [{"type": "input_text", "text": "What is said?"}, part]}],
            max_output_tokens=16,
        )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 750
    assert response.usage is not None
    assert response.usage.input_tokens > 750


def test_faults_are_the_client_s_exceptions(server: RunningServer, speech: Path) -> None:
    with server.client() as client:
        with pytest.raises(openai.BadRequestError) as srt:
            client.audio.transcriptions.create(model="ears", file=speech, response_format="srt")
        with pytest.raises(openai.BadRequestError) as times:
            client.audio.transcriptions.create(
                model="ears", file=speech, response_format="verbose_json", timestamp_granularities=["word"]
            )
        with pytest.raises(openai.BadRequestError) as broken:
            client.audio.transcriptions.create(model="ears", file=("a.wav", b"RIFF"))
        with pytest.raises(openai.BadRequestError) as made:
            client.audio.speech.create(model="ears", voice="alloy", input="Hello.")
        with pytest.raises(openai.BadRequestError, match="make pictures"):
            client.images.generate(model="ears", prompt="A fox.")
        with pytest.raises(openai.PermissionDeniedError):
            client.with_options(api_key="reader-key").audio.transcriptions.create(model="ears", file=speech)
    assert (srt.value.code, srt.value.param) == ("unsupported_operation", "response_format")
    assert (times.value.code, times.value.param) == ("unsupported_operation", "timestamp_granularities")
    assert (broken.value.code, broken.value.param) == ("invalid_request", "file")
    assert (made.value.code, "make speech" in str(made.value)) == ("unsupported_operation", True)


def test_python_programs_hear_in_process(hearing_models: dict[str, Path], speech: Path) -> None:
    with modelyard.MultimodalModelBuilder(hearing_models["ears"]).with_max_seq_len(1024).build() as model:
        content = [input_audio(speech.read_bytes()), {"type": "text", "text": "What is said?"}]
        answer = model.send_chat_request([{"role": "user", "content": content}], max_tokens=4)
        client = model.openai_client()
        text = client.audio.transcriptions.create(model="default", file=speech, extra_body=SHORT).text
        events = list(client.audio.transcriptions.create(model="default", file=speech, stream=True, extra_body=SHORT))
    assert answer.usage.prompt_tokens > 750
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == text
