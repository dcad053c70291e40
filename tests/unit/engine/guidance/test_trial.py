"""A grammar that would take all time or memory is refused where it takes nobody down with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from modelyard.engine.guidance import Constraint, GrammarCompiler
from modelyard.engine.guidance.compiler import LIMITS
from modelyard.engine.guidance.trial import GrammarTrials, reason_of
from modelyard.errors import InvalidRequest
from unit.engine.guidance.words import vocabulary

WAIT_S = 60.0


@pytest.fixture(scope="module")
def trials() -> Iterator[GrammarTrials]:
    made = GrammarTrials(LIMITS)
    yield made
    made.close()


def of_schema(schema: Any) -> str:
    return "%llguidance {}\nstart: %json " + json.dumps(schema)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def chain(length: int) -> dict[str, Any]:
    links = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "string"}}}


def multiple(*numbers: int) -> dict[str, Any]:
    return {"allOf": [{"type": "integer", "multipleOf": number} for number in numbers]}


def twice(rules: int) -> str:
    return "".join(f"a{n}: a{n + 1} a{n + 1}\n" for n in range(rules)) + f'a{rules}: "x"\n'


STEP = {"type": "object", "properties": {"x": {"$ref": "#/$defs/next"}, "y": {"$ref": "#/$defs/next"}}}


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        pytest.param(of_schema(multiple(997, 991)), "takes more than (2 s|64 MB of memory)", id="multiples"),
        pytest.param(of_schema(multiple(1000003)), "takes more than (2 s|64 MB of memory)", id="multiple"),
        pytest.param(of_schema(nested(300)), "recursion limit", id="nested"),
        pytest.param(of_schema({"$ref": "#"}), "NoExtensionBias", id="itself"),
        pytest.param(of_schema({"enum": ["x" * 150_000]}), "each token of an answer|takes more than", id="long text"),
        pytest.param(of_schema({"enum": ["x" * 900_000]}), "takes more than 64 MB of memory", id="text"),
        pytest.param(of_schema({"properties": {f"p{n}": {} for n in range(6000)}}), "too (big|large)", id="properties"),
        pytest.param("start: " + "(" * 20_000 + '"a"' + ")" * 20_000, "too deeply nested", id="brackets"),
        pytest.param(
            "start: A0\n" + twice(60).replace("a", "A"), "takes more than 64 MB of memory", id="doubling terminals"
        ),
        pytest.param(
            of_schema({"properties": {f"p{n}": {} for n in range(900)}}), "more than 450 optional", id="900 optional"
        ),
        pytest.param("start: a0\n" + twice(60), "in too many ways", id="doubling rules"),
        pytest.param('start: (("a"{1,1000}){1,1000}){1,1000}', "in too many ways", id="repeats of repeats"),
        pytest.param(of_schema(chain(3000)), "refer to one another too deeply", id="references in a row"),
        pytest.param(
            "start: a0\n" + "".join(f"a{n}: a{n + 1}\n" for n in range(3000)) + 'a3000: "x"\n',
            "refer to one another too deeply",
            id="rules in a row",
        ),
        pytest.param("start: /((a{1,1000}){1,1000}){1,1000}/", "too many expressions", id="repeats within a regex"),
        pytest.param("start: /" + "(" * 5000 + "a" + ")" * 5000 + "/", "invalid regex", id="nested regex"),
    ],
)
def test_what_takes_all_time_or_memory_is_refused(grammar: str, reason: str, trials: GrammarTrials) -> None:
    with pytest.raises(InvalidRequest, match=f"response_format cannot be enforced: .*({reason})") as refused:
        trials.check(grammar, "response_format")
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    "grammar",
    [
        of_schema({"type": "array", "items": {"type": "integer"}, "minItems": 10**9, "maxItems": 10**9}),
        of_schema({"type": "string", "minLength": 10**9, "maxLength": 10**9}),
        of_schema({"enum": [f"value {number}" for number in range(3000)]}),
        of_schema({"$ref": "#/$defs/next", "$defs": {"next": STEP}}),
        of_schema(multiple(1000)),
        of_schema({"properties": {f"p{n}": {} for n in range(450)}}),
        of_schema({"properties": {f"p{n}": {} for n in range(900)}, "required": [f"p{n}" for n in range(900)]}),
        "start: /(?:a|aa)+/",
        "start: /.*a.{500}/",
        'start: (("a" "b"){1,100000}){1,100000}',
        'start: s\ns: s s | "a" |',
        # Of the model's tokens, which are not known where a grammar is tried.
        "start: <[151657]> <[200000-200010]> <|im_end|>",
        '{"grammars": [{"lark_grammar": "start: <think> /a/ <|end|>"}]}',
    ],
)
def test_what_only_looks_large_passes(grammar: str, trials: GrammarTrials) -> None:
    trials.check(grammar, None)


def test_a_grammar_that_takes_long_holds_up_no_other() -> None:
    compiler = GrammarCompiler(vocabulary)
    ended = threading.Event()
    slow = compiler.compile(lambda: of_schema(multiple(997, 991)), lambda _: ended.set())
    done: Future[Future[Constraint | None]] = Future()
    compiler.compile(lambda: 'start: "a"', done.set_result)
    assert done.result(WAIT_S).result(0) is not None
    assert not slow.done()
    # What is closed does not wait for it, either.
    compiler.close()
    assert ended.wait(WAIT_S)


def test_a_pattern_that_cannot_be_read_is_shown_with_its_fault() -> None:
    error = "failed to compile JSON schema: regex parse error:\n    (a\n    ^\nerror: unclosed group"
    assert reason_of(error) == "failed to compile JSON schema: regex parse error: unclosed group, in (a"
