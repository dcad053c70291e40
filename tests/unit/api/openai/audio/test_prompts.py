"""Each family of models has its own prompt, and the head of an answer is not part of its words."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Literal

import orjson
import pytest

from modelyard.api.media.load import AudioFile
from modelyard.api.openai.audio.encoder import SpeechEncoder
from modelyard.api.openai.audio.languages import language_code, language_name
from modelyard.api.openai.audio.prompts import Task, speech_prompt, spoken_text
from modelyard.errors import InvalidRequest
from modelyard.hub import Modalities
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat, Text, Written
from modelyard.protocol.values import Usage

CLIP = AudioFile(b"", "file")


def asked(encoder: str, *, has_vision: bool = False, **task: Any) -> list[str]:
    """Return the text of a prompt, with ~ for the clip."""
    prompt = speech_prompt(Task(CLIP, **task), Modalities(has_vision, True, encoder))
    contents = [prompt.parts] if isinstance(prompt, Written) else [turn["content"] for turn in prompt.messages]
    return [
        text if isinstance(text, str) else "".join("~" if part is CLIP else part for part in text) for text in contents
    ]


@pytest.mark.parametrize(
    ("encoder", "task", "expected"),
    [
        ("qwen2a", {"language": "en"}, "~Detect the language and recognize the speech: <|en|>"),
        ("qwen2a", {}, "~Detect the language and recognize the speech:"),
        ("qwen2a", {"translates": True}, "~Detect the language and translate the speech into English:"),
        ("voxtral", {"language": "fr"}, "[INST]~[/INST]lang:fr[TRANSCRIBE]"),
        ("voxtral", {}, "[INST]~[/INST][TRANSCRIBE]"),
        ("ultravox", {}, "Transcribe\n~"),
        ("glma", {}, "~Please transcribe this audio into text"),
        ("granite_speech", {}, "~can you transcribe the speech into a written format?"),
        ("meralion", {}, "~Please transcribe this speech."),
        ("musicflamingo", {}, "~Transcribe the input speech."),
        ("unheard-of", {}, "~Transcribe the speech. Write only the words that are spoken."),
        ("", {"language": "de"}, "~Transcribe the German speech. Write only the words that are spoken."),
        ("lfm2a", {"translates": True}, "~Translate the speech into English. Write only the translation."),
        (
            "qwen3a",
            {"language": "en", "hint": "Modelyard"},
            "<|im_start|>system\nModelyard<|im_end|>\n<|im_start|>user\n~<|im_end|>\n<|im_start|>assistant\n"
            "language English<asr_text>",
        ),
    ],
)
def test_a_family_is_asked_in_its_own_words(encoder: str, task: dict[str, Any], expected: str) -> None:
    assert asked(encoder, **task) == [expected]


def test_some_families_are_told_who_they_are() -> None:
    assert asked("qwen2.5o", language="en") == [
        "You are a speech recognition model.",
        "~Transcribe the English audio into text.",
    ]
    assert asked("lfm2a") == ["Perform ASR.", "~"]


def test_gemma_is_asked_for_the_language_that_is_spoken() -> None:
    (unknown,), (german,) = asked("gemma4a"), asked("gemma4a", language="de")
    assert unknown.startswith("~Transcribe the following speech segment in its original language.\n\nFollow these")
    assert german.startswith("~Transcribe the following speech segment in German into German text.\n\n")


def test_one_that_also_sees_with_the_ears_of_qwen3_is_no_recogniser() -> None:
    assert asked("qwen3a", has_vision=True) == ["~Transcribe the speech. Write only the words that are spoken."]


def test_a_hint_goes_with_the_question() -> None:
    assert asked("glma", hint="Names: Aya, Bo.") == [
        "~Please transcribe this audio into text\n\nFor context: Names: Aya, Bo."
    ]


def test_before_anything_is_known_of_a_model_it_is_asked_in_plain_words() -> None:
    prompt = speech_prompt(Task(CLIP), None)
    assert isinstance(prompt, Chat)
    assert prompt.messages[0]["content"][1].startswith("Transcribe the speech.")


def test_languages_are_codes_or_names() -> None:
    assert [language_code(said) for said in ("en", "EN-gb", "pt_BR", " German ", "yue")] == [
        "en",
        "en",
        "pt",
        "de",
        "yue",
    ]
    assert language_name("zh") == "Chinese"
    with pytest.raises(InvalidRequest, match="'klingon' is not a known language"):
        language_code("klingon")


def test_the_language_that_a_model_names_is_no_word() -> None:
    assert spoken_text("language English<asr_text>Hello.") == ("English", "Hello.")
    assert spoken_text("The language is English.") == ("", "The language is English.")


FINISHED = Finished(1, "stop", Usage(780, 3, 0))


def encoder(response_format: Literal["json", "text", "verbose_json"] = "json", language: str = "") -> SpeechEncoder:
    made = SpeechEncoder(Text(""), "transcribe", 1.25, language, response_format)
    assert made.open(SimpleNamespace(output_format=None)) == b""  # type: ignore[arg-type]
    return made


def events(body: bytes) -> Iterator[dict[str, Any]]:
    for frame in body.split(b"\n\n")[:-1]:
        assert frame.startswith(b"data: ")
        yield orjson.loads(frame[6:])


@pytest.mark.parametrize(
    "pieces",
    [
        [" Hello", ", world. "],
        ["lang", "uage Eng", "lish<asr", "_text>", "Hello, ", "world. "],
        ["language English<asr_text>Hello, world. "],
        ["H", "ello, world. "],
    ],
)
def test_a_stream_has_the_words_alone(pieces: list[str]) -> None:
    writing = encoder()
    body = b"".join(map(writing.text, pieces)) + writing.close(FINISHED) + writing.end([FINISHED])
    *deltas, done = events(body)
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    assert "".join(delta["delta"] for delta in deltas) == "Hello, world. "
    usage = {"type": "tokens", "input_tokens": 780, "output_tokens": 3, "total_tokens": 783}
    assert done == {"type": "transcript.text.done", "text": "Hello, world.", "usage": usage}


@pytest.mark.parametrize(
    "text", ["language", "lang", "language that was never named in so many words as there are here, at all"]
)
def test_words_that_look_like_the_name_of_a_language_are_held_back_no_longer_than_needed(text: str) -> None:
    writing = encoder()
    *deltas, done = events(writing.text(text) + writing.close(FINISHED))
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == text


def test_an_empty_transcript_has_no_delta() -> None:
    writing = encoder()
    assert [event["type"] for event in events(writing.text("  ") + writing.close(FINISHED))] == ["transcript.text.done"]


def test_whole_answers_have_their_formats() -> None:
    assert encoder("text").choice(" Hi. ", FINISHED) == "Hi."
    assert encoder().choice(" Hi. ", FINISHED)["text"] == "Hi."
    verbose = encoder("verbose_json").choice("language German<asr_text>Hallo.", FINISHED)
    assert verbose == {
        "task": "transcribe",
        "language": "german",
        "duration": 1.25,
        "text": "Hallo.",
        "usage": {"type": "duration", "seconds": 2},
    }
    assert encoder("verbose_json", "french").choice("Salut.", FINISHED)["language"] == "french"
    assert encoder("verbose_json").choice("Hi.", FINISHED)["language"] == "unknown"
