"""Grammars become constraints beside the engine, and what they may cost is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future

import pytest
from llguidance import LLMatcher

from modelyard.engine.guidance import Constraint, GrammarCompiler
from modelyard.errors import InvalidRequest
from modelyard.system.bounded.pool import MAX_PROCESSES
from unit.engine.guidance.words import allowed, tokenize, vocabulary

WAIT_S = 30.0


@pytest.fixture
def compiler() -> Iterator[GrammarCompiler]:
    made = GrammarCompiler(vocabulary)
    yield made
    made.close()


def compiled(compiler: GrammarCompiler, make: Callable[[], str | None]) -> Constraint | None:
    done: Future[Future[Constraint | None]] = Future()
    compiler.compile(make, done.set_result)
    return done.result(WAIT_S).result(0)


def test_a_grammar_becomes_a_constraint(compiler: GrammarCompiler) -> None:
    made = compiled(compiler, lambda: 'start: "xy"')
    assert made is not None
    assert allowed(made) == {ord("x")}


def test_no_grammar_is_no_constraint(compiler: GrammarCompiler) -> None:
    assert compiled(compiler, lambda: None) is None


def test_the_vocabulary_is_read_once_and_by_the_first_grammar() -> None:
    read = []

    def make() -> object:
        read.append(threading.current_thread())
        return vocabulary()

    compiler = GrammarCompiler(make)  # type: ignore[arg-type]
    assert not read
    for _ in range(2):
        compiled(compiler, lambda: 'start: "a"')
    compiler.close()
    assert len(read) == 1
    assert read[0] is not threading.current_thread()


def _object(properties: int, depth: int = 1) -> str:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {f"p{n}": schema for n in range(properties)}}
    return LLMatcher.grammar_from_json_schema(schema)


def test_large_schemas_are_enforced(compiler: GrammarCompiler) -> None:
    for grammar in (_object(450), _object(2, depth=8)):
        assert compiled(compiler, lambda grammar=grammar: grammar) is not None  # type: ignore[misc]


@pytest.mark.parametrize(
    "grammar",
    [
        pytest.param(_object(5000), id="wide"),
        pytest.param(_object(2, depth=13), id="deep"),
        pytest.param("start: A\nA: /.*a.{30}/ & /.*b.{31}/ & /.*c.{29}/ & ~/.*d.{28}e/", id="costly regex"),
        pytest.param("start: " + "(" * 5000 + '"a"' + ")" * 5000, id="nested"),
        pytest.param("start: <[999999]>", id="unknown token"),
    ],
)
def test_what_would_take_too_long_is_refused(compiler: GrammarCompiler, grammar: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be enforced"):
        compiled(compiler, lambda: grammar)


def test_what_is_given_up_before_it_began_is_not_made(compiler: GrammarCompiler) -> None:
    goes_on, made = threading.Event(), []

    def slow() -> None:
        assert goes_on.wait(WAIT_S)

    first, *_ = [compiler.compile(slow, lambda _: None) for _ in range(MAX_PROCESSES)]
    second = compiler.compile(lambda: made.append(1), lambda _: None)  # type: ignore[func-returns-value]
    assert second.cancel()
    goes_on.set()
    assert first.result(WAIT_S) is None
    with pytest.raises(CancelledError):
        second.result(0)
    compiler.close()
    assert not made


def test_constraints_go_on_with_another_model_of_the_same_tokens(compiler: GrammarCompiler) -> None:
    asked: list[str] = []

    def model(name: str) -> Callable[[bytes], list[int]]:
        def tokenize_as(text: bytes) -> list[int]:
            asked.append(name)
            return tokenize(text)

        return tokenize_as

    words = vocabulary()
    words.attach(model("first"))
    first = GrammarCompiler(lambda: words)
    made = compiled(first, lambda: 'start: "abc" /[0-9]/ "null"')
    assert made is not None
    first.close()
    asked.clear()
    compiler.adopt(made, model("second"))
    for token in b"abc7null":
        assert token in allowed(made)
        made.accept(token)
    assert made.is_complete
    assert set(asked) == {"second"}
