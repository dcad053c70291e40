"""Tries inputs on a server whose other models stream all the while, and says what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from faults.bystanders import Bystander
from faults.files import DAMAGES, make
from faults.server import Served, served
from faults.texts import SCHEMAS, TEXTS

# The other models' streams may pause for so long.
MAX_GAP_S: Final = 2.0
ANSWER_S: Final = 300.0
ISOLATED_ANSWER_S: Final = 60.0
BYSTANDERS: Final = ("first", "second")


@dataclass(frozen=True)
class Outcome:
    """What an input did.

    Attributes:
        name: of the input.
        status: of the answer; 0 for none.
        said: the answer, or why there is none.
        took_s: until it came.
        gap_s: the longest pause of the other models' streams meanwhile.
        problems: what is wrong with all that; () where it is right.
    """

    name: str
    status: int
    said: str
    took_s: float
    gap_s: float
    problems: tuple[str, ...]


@dataclass
class Yard:
    """A server with its bystanders."""

    server: Served
    bystanders: list[Bystander]
    is_isolated: bool = False

    def try_request(self, name: str, path: str, body: Any, is_right: Callable[[httpx.Response], str]) -> Outcome:
        """Send a request. ``is_right`` says what is wrong with an answer, "" for nothing."""
        for bystander in self.bystanders:
            bystander.begin()
        began = time.monotonic()
        problems: list[str] = []
        try:
            answer = self.server.post(path, body, ISOLATED_ANSWER_S if self.is_isolated else ANSWER_S)
            status, said = answer.status_code, answer.text
            problems += filter(None, [(clear if self.is_isolated else is_right)(answer)])
        except httpx.ReadTimeout as late:
            status, said = 0, repr(late)
            if not self.is_isolated:
                # There, what does not end is not found out before it is served: it is its own model's alone.
                problems.append(f"no answer: {late!r}")
        except httpx.HTTPError as failure:
            status, said = 0, repr(failure)
            problems.append(f"no answer: {failure!r}")
        took_s = time.monotonic() - began
        gap_s = max((bystander.longest_gap_s for bystander in self.bystanders), default=0.0)
        if not self.server.is_alive:
            problems.append(f"the server ended with {self.server.process.returncode}")
        problems += [problem for bystander in self.bystanders for problem in bystander.problems]
        if gap_s > MAX_GAP_S:
            problems.append(f"streams of other models paused for {gap_s:.1f} s")
        return Outcome(name, status, said, took_s, gap_s, tuple(problems))


def clear(answer: httpx.Response) -> str:
    """An answer, or an error that says what is wrong."""
    if answer.status_code == 200:
        return ""
    try:
        error = answer.json()["error"]
        message, code = error["message"], error["code"]
    except (ValueError, KeyError, TypeError):
        return f"an error that is none: {answer.status_code} {answer.text[:200]}"
    if code == "internal_error" or len(message) < 20:
        return f"no clear error: {answer.text[:200]}"
    return ""


def as_expected(is_served: bool | None) -> Callable[[httpx.Response], str]:
    """Whether a model of a damaged file is served as it should be."""

    def judge(answer: httpx.Response) -> str:
        if (unclear := clear(answer)) or is_served is None:
            return unclear
        if is_served:
            return "" if answer.status_code == 200 else f"refused: {answer.text[:300]}"
        if answer.status_code == 503 and answer.json()["error"]["code"] == "model_load_failed":
            return ""
        return f"not refused at its load: {answer.status_code} {answer.text[:300]}"

    return judge


@contextmanager
def yard(
    folder: Path,
    weights: Mapping[str, Path],
    files: Mapping[str, Path],
    *,
    is_isolated: bool,
    rest_s: float = 0.0,
    converts_first: bool = False,
) -> Iterator[Yard]:
    """A server with two models that stream all the while, and one for each of ``files``, loaded when it is needed.

    Args:
        folder: where the server's files are.
        weights: those of the two models.
        files: the models that are tried.
        is_isolated: files are not tried before, and each engine has a process of its own.
        rest_s: see ``Bystander``.
        converts_first: whether checkpoints are converted before the others stream, when it takes a tenth of the time.
    """
    device = {"max_seq_len": 512}
    models: list[dict[str, Any]] = [
        {"model_id": str(path), "alias": alias, "device": device}
        for alias, path in zip(BYSTANDERS, weights.values(), strict=True)
    ]
    models += [
        {"model_id": str(path), "alias": name, "load": "on-demand", "idle_unload_seconds": 1, "device": device}
        for name, path in files.items()
    ]
    runtime = {"trial": False, "isolation": "process"} if is_isolated else {}
    with served(folder, models, max_seqs=4, **runtime) as server, ExitStack() as stack:
        for name in files if converts_first else ():
            server.post("/v1/models/prepare", {"model_id": name}, ANSWER_S)
        bystanders = [stack.enter_context(Bystander(server.url, alias, rest_s)) for alias in BYSTANDERS]
        yield Yard(server, bystanders, is_isolated)


def try_files(
    folder: Path, weights: Mapping[str, Path], names: Iterable[str], *, is_isolated: bool = False, rest_s: float = 0.0
) -> Iterator[Outcome]:
    """Damaged files: a completion of each, twice, and a chat where the template is what is damaged."""
    names = list(names)
    source = weights["smollm2"]
    files = {name: make(source, folder / f"{number}.gguf", DAMAGES[name]) for number, name in enumerate(names)}
    with yard(folder, weights, files, is_isolated=is_isolated, rest_s=rest_s) as running:
        for name in names:
            body = {"model": name, "prompt": "Once upon a time", "max_tokens": 4}
            yield running.try_request(name, "/v1/completions", body, as_expected(DAMAGES[name].is_served))
            if name.startswith("template: "):
                chat = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
                yield running.try_request(f"{name}, a chat", "/v1/chat/completions", chat, clear)


def try_texts(
    folder: Path,
    weights: Mapping[str, Path],
    pre_tokenizers: Iterable[str],
    texts: Iterable[str],
    *,
    is_isolated: bool = False,
    rest_s: float = 0.0,
) -> Iterator[Outcome]:
    """Texts on models of other pre-tokenizers: their tokens, and a completion of each."""
    source, texts = weights["smollm2"], list(texts)
    files = {name: make(source, folder / f"{name}.gguf", DAMAGES[f"pre-tokenizer: {name}"]) for name in pre_tokenizers}
    with yard(folder, weights, files, is_isolated=is_isolated, rest_s=rest_s) as running:
        for name in files:
            for text in texts:
                tokens = {"model": name, "content": TEXTS[text]}
                yield running.try_request(f"{name}: tokens of {text}", "/tokenize", tokens, clear)
                prompt = {"model": name, "prompt": TEXTS[text], "max_tokens": 2}
                yield running.try_request(f"{name}: {text}", "/v1/completions", prompt, clear)


def try_schemas(
    folder: Path, weights: Mapping[str, Path], names: Iterable[str], *, is_isolated: bool = False, rest_s: float = 0.0
) -> Iterator[Outcome]:
    """Schemas that a grammar is to be made of."""
    with yard(folder, weights, {}, is_isolated=is_isolated, rest_s=rest_s) as running:
        for name in names:
            schema = {"type": "json_schema", "json_schema": {"name": "odd", "schema": SCHEMAS[name]}}
            body = {
                "model": BYSTANDERS[0],
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 4,
                "response_format": schema,
            }
            yield running.try_request(name, "/v1/chat/completions", body, clear)


def try_architectures(folder: Path, weights: Mapping[str, Path], *, is_isolated: bool = False) -> Iterator[Outcome]:
    """Tiny checkpoints of all architectures, converted here: a completion of each."""
    # Imported here: it makes checkpoints with transformers, which takes seconds to import.
    from architectures.making import made
    from architectures.table import ARCHITECTURES

    checkpoints = {name: made(architecture).folder for name, architecture in ARCHITECTURES.items()}
    with yard(folder, weights, checkpoints, is_isolated=is_isolated, converts_first=True) as running:
        for name in checkpoints:
            body = {"model": name, "prompt": "Once upon a time", "max_tokens": 8}
            yield running.try_request(name, "/v1/completions", body, clear)
