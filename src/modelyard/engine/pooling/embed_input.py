"""Turns the inputs of an embedding request into token ids, or refuses them before they cost anything."""

from __future__ import annotations

from collections.abc import Callable

from modelyard.engine.input.bounded_tokenize import tokenize_beginning
from modelyard.engine.input.prompt_encoder import check_known
from modelyard.errors import InputTooLong, InvalidRequest
from modelyard.protocol.prompts import Text, Tokens

Tokenize = Callable[[str, bool], list[int]]


class InputReader:
    """Reads inputs for one model.

    Args:
        tokenize: tokenises a text, with the special tokens of a text around it if the second argument is True. What
            reads like a special token within it is text.
        vocab_size: number of token ids.
        longest: limit of tokens of one input.
    """

    def __init__(self, tokenize: Tokenize, *, vocab_size: int, longest: int) -> None:
        self._tokenize = tokenize
        self._vocab_size = vocab_size
        self._longest = longest

    def read(self, inputs: tuple[Text | Tokens, ...], *, truncates: bool = False) -> list[list[int]]:
        """Return the token ids of each input; ids are taken as they are, without special tokens around them.

        Args:
            inputs: texts and ids.
            truncates: whether a text that is too long is cut instead of refused.

        Raises:
            InputTooLong: one has more tokens than the model takes.
            InvalidRequest: one is empty, or holds what is not in the vocabulary.
        """
        names = ["input"] if len(inputs) == 1 else [f"input[{index}]" for index in range(len(inputs))]
        return [self._read(given, name, truncates=truncates) for given, name in zip(inputs, names, strict=True)]

    def _read(self, given: Text | Tokens, param: str, *, truncates: bool) -> list[int]:
        match given:
            case Text(text):
                tokens = self._beginning_of(text) if truncates else self._tokens_of(text, param)
                check_known(tokens, self._vocab_size, param)
            case Tokens(ids):
                tokens = self._checked(ids, param)
        if not tokens:
            raise InvalidRequest(f"'{param}' is empty.", param)
        if len(tokens) > self._longest:
            raise InputTooLong(self._longest, len(tokens), param)
        return tokens

    def _tokens_of(self, text: str, param: str) -> list[int]:
        tokens, part = tokenize_beginning(self._around, text, self._longest)
        if len(part) < len(text):
            raise InputTooLong(self._longest, None, param)
        return tokens

    def _around(self, text: str) -> list[int]:
        return self._tokenize(text, True)

    def _beginning_of(self, text: str) -> list[int]:
        """Return as many tokens as the model takes, ending with the special tokens that end a text."""
        tokens, part = tokenize_beginning(self._around, text, self._longest)
        if len(tokens) <= self._longest:
            return tokens
        plain = self._tokenize(part, False)
        around = len(tokens) - len(plain)
        begins = next((at for at in range(around + 1) if tokens[at : at + len(plain)] == plain), around)
        tail = tokens[begins + len(plain) :]
        return tokens[: self._longest - len(tail)] + tail

    def _checked(self, ids: tuple[int, ...], param: str) -> list[int]:
        for token in ids:
            if not 0 <= token < self._vocab_size:
                raise InvalidRequest(
                    f"'{param}' holds token {token}, but this model's vocabulary has ids 0 to {self._vocab_size - 1}. "
                    "Ids must be those of the model's own tokenizer; or send text.",
                    param,
                )
        return list(ids)
