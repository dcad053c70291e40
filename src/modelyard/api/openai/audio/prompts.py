"""Prompts for transcription and translation of speech, for each family of models. Pure functions.

The projector's file names the family.

Sources: transformers, ``processing_qwen3_asr.py``, ``processing_audioflamingo3.py`` and ``processing_glmasr.py``, for
the transcription prompts of these three. The prompts of the other families, and all prompts for translation, are not
checked against a source, and none is tried on published weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.api.media.load import AudioFile
from modelyard.api.openai.audio.languages import language_name
from modelyard.hub import Modalities
from modelyard.protocol.prompts import Chat, ControlText, PlainText, Written

# The end of the head that Qwen3-ASR writes before the words if no language is given: "language English<asr_text>".
_SPOKEN: Final = "<asr_text>"


@dataclass(frozen=True, slots=True)
class Task:
    """One transcription or translation.

    Attributes:
        clip: the sound.
        language: code of the spoken language; None: not known.
        hint: words that may occur, or the text before the clip.
        translates: whether to translate the words into English.
    """

    clip: AudioFile
    language: str | None = None
    hint: str = ""
    translates: bool = False

    @property
    def spoken(self) -> str:
        """The English name of the spoken language and a space; "" if it is not known."""
        return f"{language_name(self.language)} " if self.language else ""


Prompt = Chat | Written


def speech_prompt(task: Task, modalities: Modalities | None) -> Prompt:
    """Return the prompt for a model with those modalities; None: they are not known yet."""
    encoder = "" if modalities is None else modalities.audio_encoder
    if encoder == "qwen3a" and modalities is not None and modalities.has_vision:
        # Qwen3-Omni has the encoder of Qwen3-ASR, but takes instructions in words.
        encoder = ""
    return _FAMILIES.get(encoder, _generic)(task)


def spoken_text(text: str) -> tuple[str, str]:
    """Split an answer into the detected language, "" if the answer names none, and the words."""
    before, mark, words = text.partition(_SPOKEN)
    if not mark:
        return "", text
    return before.removeprefix("language").strip(), words


def _chat(*content: Any, system: str = "") -> Chat:
    """Return a user's turn, after a system prompt if one is given."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return Chat((*turns, {"role": "user", "content": content}))


def _hinted(task: Task, words: str) -> str:
    return f"{words}\n\nFor context: {task.hint}" if task.hint else words


def _generic(task: Task) -> Chat:
    if task.translates:
        words = f"Translate the {task.spoken}speech into English. Write only the translation."
    else:
        words = f"Transcribe the {task.spoken}speech. Write only the words that are spoken."
    return _chat(task.clip, _hinted(task, words))


def _qwen2_audio(task: Task) -> Chat:
    instruction = "translate the speech into English" if task.translates else "recognize the speech"
    mark = (ControlText(f" <|{task.language}|>"),) if task.language else ()
    return _chat(task.clip, f"Detect the language and {instruction}:", *mark, _hinted(task, ""))


def _qwen25_omni(task: Task) -> Chat:
    if task.translates:
        words = f"Listen to the provided {task.spoken}speech and produce a translation in English text."
        return _chat(task.clip, _hinted(task, words), system="You are a speech translation model.")
    words = f"Transcribe the {task.spoken}audio into text."
    return _chat(task.clip, _hinted(task, words), system="You are a speech recognition model.")


def _qwen3_asr(task: Task) -> Prompt:
    if task.translates:
        return _generic(task)
    # A known language becomes the beginning of the answer, for which the chat template has no place.
    prefix = f"language {language_name(task.language)}{_SPOKEN}" if task.language else ""
    return Written(
        (
            "<|im_start|>system\n",
            PlainText(task.hint),
            "<|im_end|>\n<|im_start|>user\n",
            task.clip,
            f"<|im_end|>\n<|im_start|>assistant\n{prefix}",
        )
    )


def _gemma(task: Task) -> Chat:
    if task.translates:
        return _generic(task)
    language = f"{task.spoken}into {task.spoken}text" if task.language else "its original language"
    words = (
        f"Transcribe the following speech segment in {language}.\n\n"
        "Follow these specific instructions for formatting the answer:\n"
        "* Only output the transcription, with no newlines.\n"
        "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of "
        "three."
    )
    return _chat(task.clip, _hinted(task, words))


def _glm_asr(task: Task) -> Chat:
    return (
        _generic(task) if task.translates else _chat(task.clip, _hinted(task, "Please transcribe this audio into text"))
    )


def _granite(task: Task) -> Chat:
    words = (
        "can you translate the speech to English?"
        if task.translates
        else ("can you transcribe the speech into a written format?")
    )
    return _chat(task.clip, _hinted(task, words))


def _lfm2(task: Task) -> Chat:
    return _generic(task) if task.translates else _chat(task.clip, system="Perform ASR.")


def _meralion(task: Task) -> Chat:
    words = "Please translate this speech to English." if task.translates else "Please transcribe this speech."
    return _chat(task.clip, _hinted(task, words))


def _flamingo(task: Task) -> Chat:
    return _generic(task) if task.translates else _chat(task.clip, _hinted(task, "Transcribe the input speech."))


def _ultravox(task: Task) -> Chat:
    if task.translates:
        words = (
            "Please translate the text to English. Your response should only include the English translation, without "
        )
        return _chat(_hinted(task, f"{words}any additional words:\n\n"), task.clip)
    return _chat(_hinted(task, "Transcribe\n"), task.clip)


def _voxtral(task: Task) -> Prompt:
    if task.translates:
        return _generic(task)
    language = f"lang:{task.language}" if task.language else ""
    return Written(("[INST]", task.clip, f"[/INST]{language}[TRANSCRIBE]"))


# Audio encoder, as projector files name it -> prompt. Source: llama.cpp, tools/mtmd/clip-impl.h.
_FAMILIES: Final[Mapping[str, Callable[[Task], Prompt]]] = {
    "qwen2a": _qwen2_audio,
    "qwen2.5o": _qwen25_omni,
    "qwen3a": _qwen3_asr,
    "gemma4a": _gemma,
    "gemma4ua": _gemma,
    "glma": _glm_asr,
    "granite_speech": _granite,
    "lfm2a": _lfm2,
    "meralion": _meralion,
    "musicflamingo": _flamingo,
    "ultravox": _ultravox,
    "voxtral": _voxtral,
}
