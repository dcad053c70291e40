"""Turns a query and a document into the token ids of one input, in the form that rerankers were trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from modelyard.engine.input.bounded_tokenize import tokenize_beginning
from modelyard.errors import InputTooLong, InvalidRequest, UnusableModel

_QUERY, _DOCUMENT = "{query}", "{document}"
_PLACEHOLDER: Final = re.compile(r"\{(query|document)\}")

_CUT: Final = "set 'max_tokens_per_doc', with which documents are cut"

Frame = tuple[tuple[int, ...] | str, ...]
"""The parts of an input: token ids, and text with ``{query}`` or ``{document}`` in it."""


class PairVocabulary(Protocol):
    """The part of ``llama.Model`` that reading pairs needs."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Return the token ids of ``text``."""

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token."""

    def is_control(self, token: int) -> bool:
        """Whether a token is a control token, which is not text."""

    def pair_tokens(self) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens before the first of two texts, between them, and behind the second."""

    def ranking_template(self) -> str | None:
        """Return the template of a query and a document; None: the document follows the query."""


def ranking_frame(vocabulary: PairVocabulary) -> Frame:
    """Return the parts of an input with a query and a document, as the model reads them.

    A template is split at its control tokens: a document that spells one out holds text, which ends nothing.

    Source: llama.cpp, tools/server/server-common.cpp, format_prompt_rerank: [BOS]query[EOS][SEP]document[EOS].

    Raises:
        UnusableModel: the template has no place for the query or the document.
    """
    template = vocabulary.ranking_template()
    if template is None:
        begin, between, end = map(tuple, vocabulary.pair_tokens())
        return begin, _QUERY, between, _DOCUMENT, end
    for placeholder in (_QUERY, _DOCUMENT):
        if placeholder not in template:
            raise UnusableModel(f"Its ranking template has no place for {placeholder}. Use another file of the model.")
    frame: list[tuple[int, ...] | str] = []
    run: list[int] = []

    def end_run() -> None:
        text = b"".join(vocabulary.pieces(run)).decode("utf-8", "replace")
        frame.append(text if _PLACEHOLDER.search(text) else tuple(run))
        run.clear()

    for token in vocabulary.tokenize(template, add_special=False):
        if vocabulary.is_control(token):
            end_run()
            frame.append((token,))
        else:
            run.append(token)
    end_run()
    return tuple(frame)


class PairReader:
    """Reads queries and documents for one model.

    Args:
        vocabulary: vocabulary of the model.
        vocab_size: number of token ids.
        longest: limit of tokens of a query and a document together, with what is around them.
    """

    def __init__(self, vocabulary: PairVocabulary, *, vocab_size: int, longest: int) -> None:
        self._frame = ranking_frame(vocabulary)
        self._piece_bytes = vocabulary.pieces
        self._tokenize: Callable[[str], list[int]] = lambda text: vocabulary.tokenize(
            text, add_special=False, parse_special=False
        )
        self._vocab_size = vocab_size
        self._longest = longest

    def read(self, query: str, documents: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Return the token ids of ``query`` with each of ``documents``.

        Args:
            query: the question.
            documents: possible answers.
            max_tokens: limit of tokens of a document; longer ones, and those that do not fit, are cut. None: they are
                refused.

        Raises:
            InputTooLong: a document, with the query, has more tokens than the model takes.
            InvalidRequest: one holds what is not in the vocabulary.
        """
        beginning, part = tokenize_beginning(self._tokenize, query, self._longest)
        if len(beginning) > self._longest:
            raise InputTooLong(self._longest, len(beginning) if part == query else None, "query")
        # Parts without the document are the same in all inputs.
        around = [piece if _DOCUMENT in piece else self._ids(piece, query, "") for piece in self._frame]
        room = self._longest - len(self._pair(around, query, "", ()))
        if room < 0:
            raise InputTooLong(self._longest, self._longest - room, "query")
        limit = room if max_tokens is None else min(max_tokens, room)
        inputs: list[list[int]] = []
        for index, document in enumerate(documents):
            param = f"documents[{index}]"
            ids, part = tokenize_beginning(self._tokenize, document, limit)
            tokens = [] if len(ids) > limit else self._pair(around, query, document, ids)
            while len(ids) > limit or len(tokens) > self._longest:
                if max_tokens is None:
                    raise InputTooLong(limit, len(ids) if part == document else None, param, _CUT)
                # In a template, the tokens at both ends of a document may differ from those of the document alone.
                ids = ids[: min(limit, len(ids) - 1)]
                text = b"".join(self._piece_bytes(ids)).decode("utf-8", "ignore")
                tokens = self._pair(around, query, text, ids)
            inputs.append(self._checked(tokens, param))
        return inputs

    def _pair(self, around: Sequence[Sequence[int] | str], query: str, document: str, ids: Sequence[int]) -> list[int]:
        """Return an input with a document, whose tokens are ``ids`` where it stands alone."""
        tokens: list[int] = []
        for piece in around:
            tokens += ids if piece == _DOCUMENT else self._ids(piece, query, document)
        return tokens

    def _checked(self, tokens: list[int], param: str) -> list[int]:
        if not tokens:
            raise InvalidRequest(f"'{param}' is empty, and so is the query.", param)
        if not 0 <= min(tokens) <= max(tokens) < self._vocab_size:
            # Tokenizers without a token for the unknown yield ids outside of the vocabulary, which llama.cpp refuses.
            raise InvalidRequest(
                f"'{param}', or the query, has parts for which the model's vocabulary has no token.", param
            )
        return tokens

    def _ids(self, piece: Sequence[int] | str, query: str, document: str) -> Sequence[int]:
        if not isinstance(piece, str):
            return piece
        texts = {_QUERY: query, _DOCUMENT: document}
        return self._tokenize(_PLACEHOLDER.sub(lambda placeholder: texts[placeholder[0]], piece))
