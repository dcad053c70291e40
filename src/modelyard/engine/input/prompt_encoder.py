"""Turns a request's prompt into token ids, or refuses it before it costs anything."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from modelyard.engine.chat.chat_format import ChatFormat
from modelyard.engine.chat.marked_text import MarkedText, by_template
from modelyard.engine.input.bounded_tokenize import COMMON_TOKEN_CHARACTERS, tokenize_beginning
from modelyard.engine.input.prompt_tokenizer import PromptTokenizer
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.llama import InfillTokens
from modelyard.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    TakesNoImages,
    TakesNoSound,
    UnsupportedOperation,
)
from modelyard.protocol.prompts import (
    Audio,
    Chat,
    ControlText,
    Infill,
    Media,
    Pieces,
    PlainText,
    Prompt,
    Text,
    Tokens,
    Written,
    media_of,
    salted,
)
from modelyard.protocol.values import OutputFormat

# Characters of a file that are tokenised per token of the context. Source code has about three characters a token.
_FILE_CHARACTERS: Final = 4

# Characters of a prompt that is cut, for each token of the context; more of it is not tokenised.
_CUT_CHARACTERS: Final = 64


class SupportsMedia(Protocol):
    """Lays images and sound out as tokens; see ``vision.Vision``."""

    def parts(self, source: Media) -> Sequence[list[int] | ImageSpan]:
        """Return the image spans of ``source``, and the token ids of the text that the model expects around them."""


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A prompt as token ids, with placeholders for its image spans, which ``images`` lists by their first placeholder.

    output_format tells how readers parse the answer; None: it is plain text. repairs: as in ``Accepted``.
    """

    tokens: list[int]
    images: dict[int, ImageSpan] = field(default_factory=dict)
    output_format: OutputFormat | None = None
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A prompt whose texts are tokenised, and whose images and clips are yet to be laid out.

    Attributes:
        param: the field of the request that the prompt came in.
        parts: token ids, and the images and clips between them.
        output_format, repairs: as in ``ReadPrompt``.
    """

    param: str
    parts: tuple[list[int] | Media, ...]
    output_format: OutputFormat | None = None
    repairs: tuple[str, ...] = ()

    def salted(self, salt: str) -> PreparedPrompt:
        """Return the prompt with ``salt`` in its images and clips, which only requests of the same salt share."""
        if not salt or all(isinstance(part, list) for part in self.parts):
            return self
        parts = tuple(part if isinstance(part, list) else salted(part, salt) for part in self.parts)
        return replace(self, parts=parts)


@dataclass(frozen=True, slots=True)
class PromptVocabulary:
    """The part of a model's vocabulary that prompts depend on.

    Attributes:
        size: number of token ids.
        infill: see ``Model.infill_tokens``.
        longest_token: returns the limit of bytes that one token can stand for, or None; called where a text is long.
    """

    size: int
    infill: InfillTokens | None = None
    longest_token: Callable[[], int | None] = lambda: None


class PromptReader:
    """Reads prompts for one model.

    Args:
        tokenizer: tokenises texts.
        chat_format: writes chats out; None where the model has no usable template.
        why_no_chat: message of the error for a chat in that case.
        vocabulary: of the model.
        context_length: limit of tokens of one sequence.
        vision: None where the model takes neither images nor sound.
        name: id of the model, for messages.
        max_characters: limit of characters of a text that is only tokenised, whatever number of tokens it has; None:
            texts are read for the model, and refused once they have more tokens than its context.
    """

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        *,
        chat_format: ChatFormat | None,
        why_no_chat: str,
        vocabulary: PromptVocabulary,
        context_length: int,
        vision: SupportsMedia | None = None,
        name: str = "",
        max_characters: int | None = None,
    ) -> None:
        self._max_characters = max_characters
        self._tokenizer = tokenizer
        self._chat_format = chat_format
        self._why_no_chat = why_no_chat
        self._vocabulary = vocabulary
        self._context_length = context_length
        self._vision = vision
        self._name = name

    def read(self, prompt: Prompt) -> ReadPrompt:
        """Return the token ids of ``prompt``: ``prepare`` and ``finish`` in one."""
        return self.finish(self.prepare(prompt))

    def prepare(self, prompt: Prompt, cut_to: int | None = None) -> PreparedPrompt:
        """Render a chat, and tokenise all texts. May be called on any thread, and may take seconds.

        Args:
            prompt: the prompt.
            cut_to: how many tokens of a longer prompt are left, the last ones and the begin token; None: it is not cut.

        Raises:
            UnsupportedOperation: the prompt is a chat and the model has no usable chat template, or it has an image or
                a clip and the model takes none.
            ContextLengthExceeded: a text leaves no room for an answer.
            InvalidRequest: the template refuses it, or it holds what is not in the vocabulary.
        """
        if cut_to is not None:
            return self._cut(prompt, cut_to)
        match prompt:
            case Chat():
                if self._chat_format is None:
                    raise UnsupportedOperation(self._why_no_chat, "model")
                return self._prepare_chat(self._chat_format, prompt)
            case Text(text):
                return PreparedPrompt("prompt", (self._tokens_of(text, "prompt"),))
            case Infill():
                return PreparedPrompt("suffix", (self._with_gap(prompt),))
            case Tokens(ids):
                return PreparedPrompt("prompt", (self._checked(ids),))
            case Pieces():
                return PreparedPrompt("prompt", (self._joined(prompt.parts),))
            case Written(parts):
                return self._prepare_written(parts)

    def _cut(self, prompt: Prompt, length: int) -> PreparedPrompt:
        """Return the last ``length`` tokens of a prompt, with the begin token if it has one."""
        if media_of(prompt):
            raise InvalidRequest(
                "A prompt with images or sound cannot be cut. Leave 'truncate_prompt_tokens' out.",
                "truncate_prompt_tokens",
            )
        longest = _CUT_CHARACTERS * self._context_length
        if isinstance(prompt, Text):
            prompt = Text(prompt.text[-longest:])
        uncut = type(self)(
            self._tokenizer,
            chat_format=self._chat_format,
            why_no_chat=self._why_no_chat,
            vocabulary=self._vocabulary,
            context_length=self._context_length,
            name=self._name,
            max_characters=longest,
        )
        prepared = uncut.prepare(prompt)
        tokens = [token for part in prepared.parts if isinstance(part, list) for token in part]
        check_known(tokens, self._vocabulary.size, prepared.param)
        begin = self._tokenizer.begin_tokens
        if len(tokens) > length and 0 < len(begin) < length and tokens[: len(begin)] == begin:
            tokens = begin + tokens[len(tokens) - length + len(begin) :]
        return replace(prepared, parts=(tokens[max(0, len(tokens) - length) :],))

    def finish(self, prepared: PreparedPrompt) -> ReadPrompt:
        """Return the token ids of a prompt, at least one and fewer than the context holds. Runs on the engine's thread.

        Raises:
            ContextLengthExceeded: it leaves no room for an answer.
            InvalidRequest: it is empty, or an image or a clip cannot be used.
        """
        read = ReadPrompt([], output_format=prepared.output_format, repairs=prepared.repairs)
        for part in prepared.parts:
            if isinstance(part, list):
                read.tokens.extend(part)
                continue
            assert self._vision is not None
            for shown in self._vision.parts(part):
                if isinstance(shown, ImageSpan):
                    placeholders = shown.placeholders
                    read.images[placeholders[0]] = shown
                    read.tokens.extend(placeholders)
                else:
                    read.tokens.extend(shown)
            if len(read.tokens) >= self._context_length:
                raise ContextLengthExceeded(self._context_length, None, "messages")
        if not read.tokens:
            raise InvalidRequest("The prompt is empty.", prepared.param)
        if self._max_characters is None and len(read.tokens) >= self._context_length:
            raise ContextLengthExceeded(self._context_length, len(read.tokens), prepared.param)
        return read

    def _prepare_chat(self, chat_format: ChatFormat, chat: Chat) -> PreparedPrompt:
        """Render a chat, with each image or clip where the template wrote the mark that stands for it.

        The marks cannot be guessed, so no text of a message is mistaken for one.

        Only what the template wrote becomes control tokens.
        """
        sources: list[Media] = []
        controls: list[ControlText] = []
        nonce = secrets.token_hex(8)

        def text_of(part: str | Media) -> str:
            if isinstance(part, ControlText):
                controls.append(part)
                return f"<control {nonce} {len(controls) - 1}>"
            if isinstance(part, str):
                return part
            sources.append(part)
            return f"<media {nonce} {len(sources) - 1}>"

        messages = [
            {**message, "content": "".join(map(text_of, content))}
            if isinstance(content := message.get("content"), tuple)
            else message
            for message in chat.messages
        ]
        if sources and self._vision is None:
            raise self._takes_none(sources[0])
        written = chat_format.write(replace(chat, messages=tuple(messages)))
        prompt = written.text
        for number, control in enumerate(controls):
            prompt = prompt.replace(f"<control {nonce} {number}>", by_template(control))
        if not sources:
            parts: tuple[list[int] | Media, ...] = (self._tokens_of(prompt, "messages"),)
            return PreparedPrompt("messages", parts, written.output_format, written.repairs)
        marks = list(re.finditer(rf"<media {nonce} (\d+)>", prompt))
        numbers = [int(mark[1]) for mark in marks]
        if lost := set(range(len(sources))) - set(numbers):
            source = sources[min(lost)]
            raise InvalidRequest(
                f"The model's chat template leaves this {_kind_of(source)} out. Put it into another message, such as "
                "the last one of the user.",
                source.param,
            )
        ends = [0, *(mark.end() for mark in marks)]
        starts = [*(mark.start() for mark in marks), len(prompt)]
        texts = [prompt[end:start] for end, start in zip(ends, starts, strict=True)]
        parts = self._between(texts, [sources[number] for number in numbers])
        return PreparedPrompt("messages", parts, written.output_format, written.repairs)

    def _prepare_written(self, parts: tuple[str | Media, ...]) -> PreparedPrompt:
        texts: list[str] = [by_template("")]
        sources: list[Media] = []
        for part in parts:
            if isinstance(part, PlainText):
                texts[-1] += MarkedText(part)
            elif isinstance(part, str):
                texts[-1] += by_template(part)
            else:
                sources.append(part)
                texts.append(by_template(""))
        if not sources:
            return PreparedPrompt("prompt", (self._tokens_of(texts[0], "prompt"),))
        if self._vision is None:
            raise self._takes_none(sources[0])
        return PreparedPrompt("prompt", self._between(texts, sources))

    def _takes_none(self, source: Media) -> UnsupportedOperation:
        return (TakesNoSound if isinstance(source, Audio) else TakesNoImages)(self._name, source.param)

    def _between(self, texts: Sequence[str], sources: Sequence[Media]) -> tuple[list[int] | Media, ...]:
        """Return the tokens of each text, with an image or a clip behind each but the last."""
        if not texts[-1]:
            raise InvalidRequest(
                f"The model's chat template writes nothing behind the last {_kind_of(sources[-1])}, so there is "
                "nothing to answer.",
                sources[-1].param,
            )
        parts: list[list[int] | Media] = [self._tokens_of(texts[0], "messages")]
        for source, text in zip(sources, texts[1:], strict=True):
            parts += (source, self._tokens_of(text, "messages", is_start=False))
        return tuple(parts)

    def _joined(self, parts: tuple[str | int, ...]) -> list[int]:
        """Return the tokens of texts and token ids; a text at the beginning gets the begin token."""
        tokens: list[int] = []
        for part in parts:
            if isinstance(part, str):
                tokens += self._tokens_of(part, "prompt", is_start=not tokens)
            else:
                tokens += self._checked((part,))
        return tokens

    def _with_gap(self, prompt: Infill) -> list[int]:
        """Return the tokens of a text with a gap, in the order prefix, suffix, middle, on which models are trained.

        Source: M. Bavarian et al., "Efficient Training of Language Models to Fill in the Middle", 2022.
        """
        infill = self._vocabulary.infill
        if infill is None:
            raise UnsupportedOperation(
                "This model has no tokens for filling gaps. Send a prompt without 'suffix', or name a model that was "
                "trained to fill gaps, such as Qwen2.5-Coder.",
                "suffix",
            )
        head = self._tokenizer.begin_tokens
        gap = [infill.prefix, *self._plain(prompt.before), infill.suffix, *self._plain(prompt.behind)]
        gap += [infill.middle, *self._plain(prompt.begun)]
        files = self._files(infill, prompt.files)
        room = self._context_length - len(head) - len(gap) - max(1, prompt.reserved)
        return [*head, *files[max(0, len(files) - max(0, room)) :], *gap]

    def _files(self, infill: InfillTokens, files: tuple[tuple[str, str], ...]) -> list[int]:
        """Return the tokens of the other files of a project, or [] where there are none.

        Source: B. Hui et al., "Qwen2.5-Coder Technical Report", 2024, section 3.2; llama.cpp, tools/server,
        server-common.cpp, format_prompt_infill, also for the separators of models that have no tokens for files.
        """
        if not files:
            return []
        tokens = [infill.repository, *self._plain("myproject\n")] if infill.repository >= 0 else []
        for name, text in files:
            if infill.file >= 0:
                tokens += [infill.file, *self._plain(f"{name}\n")]
            else:
                tokens += self._plain("\n\n--- snippet ---\n\n")
            # What does not fit is cut at the beginning, so a text may be longer than the context.
            tokens += self._tokenizer.plain(text[-_FILE_CHARACTERS * self._context_length :])
        if infill.file >= 0:
            tokens += [infill.file, *self._plain("filename\n")]
        return tokens

    def _plain(self, text: str) -> list[int]:
        return self._bounded(self._tokenizer.plain, text, "suffix") if text else []

    def _tokens_of(self, text: str, param: str, *, is_start: bool = True) -> list[int]:
        begin = self._tokenizer.begin_tokens if is_start and not self._tokenizer.begins(text) else []
        return self._bounded(lambda beginning: begin + self._tokenizer.tokens(beginning), text, param)

    def _bounded(self, tokenize: Callable[[str], list[int]], text: str, param: str) -> list[int]:
        """Return the tokens of ``text``, of which no more than a part is tokenised where it is too long."""
        if self._max_characters is not None:
            check_length(text, self._max_characters, param)
            return tokenize(text)
        if self._is_plainly_too_long(text):
            raise ContextLengthExceeded(self._context_length, None, param)
        tokens, part = tokenize_beginning(tokenize, text, self._context_length)
        if len(part) < len(text):
            raise ContextLengthExceeded(self._context_length, None, param)
        check_known(tokens, self._vocabulary.size, param)
        return tokens

    def _is_plainly_too_long(self, text: str) -> bool:
        """Whether a text cannot fit, however it is tokenised."""
        if len(text) <= self._context_length * COMMON_TOKEN_CHARACTERS:
            return False
        longest = self._vocabulary.longest_token()
        return longest is not None and len(text.encode("utf-8", "replace")) >= self._context_length * longest

    def _checked(self, ids: tuple[int, ...]) -> list[int]:
        last = self._vocabulary.size - 1
        for token in ids:
            if not 0 <= token <= last:
                raise InvalidRequest(
                    f"The prompt holds token {token}, but this model's vocabulary has ids 0 to {last}.", "prompt"
                )
        return list(ids)


def _kind_of(source: Media) -> str:
    return "sound" if isinstance(source, Audio) else "image"


def check_known(tokens: Sequence[int], vocab_size: int, param: str) -> None:
    """Refuse the tokens of a text for parts of which the vocabulary has none.

    Tokenizers without a token for the unknown yield ids outside of the vocabulary, which llama.cpp refuses.

    Raises:
        InvalidRequest: there are such tokens.
    """
    if tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
        raise InvalidRequest(f"'{param}' has parts for which the model's vocabulary has no token.", param)


def check_length(text: str, max_characters: int, param: str) -> None:
    """Refuse a text that is too long to be tokenised at once.

    Raises:
        InvalidRequest: it has more than ``max_characters``.
    """
    if len(text) > max_characters:
        raise InvalidRequest(
            f"'{param}' has {len(text)} characters, and {max_characters} are the most that are tokenised at once. "
            "Send it in parts.",
            param,
        )
