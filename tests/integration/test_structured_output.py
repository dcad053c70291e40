"""Answers of real models follow what the request demands, from its first token and whatever happens meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai import BadRequestError

from conftest import two_models
from modelyard.config import validate_config
from modelyard.engine.chat import chat_format
from modelyard.engine.guidance import Constraint, ConstraintBroken, GrammarCompiler
from modelyard.engine.guidance.trial import GrammarTrials
from modelyard.engine.llama import Model, Weights
from modelyard.errors import GrammarUntried
from modelyard.protocol.events import Cancelled, Failed, Returned
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Sampling, Text
from modelyard.protocol.requests import Cancel, Stop, Submit
from modelyard.protocol.values import SequenceId
from support.engine_driver import GREEDY, Driven, Steps, engine
from support.server import WAIT_S, RunningServer, serving
from unit.engine.guidance.words import babble

ROOT = Path(__file__).resolve().parents[2]
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "population": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
        "is_capital": {"type": "boolean"},
        "kind": {"enum": ["village", "town", "city"]},
    },
    "required": ["city", "population", "is_capital", "kind"],
    "additionalProperties": False,
}
QUESTION = [{"role": "user", "content": "Tell me about Paris, as JSON."}]
YES = {"type": "regex", "value": "(yes|no), (sure|never)"}


def schema_format(schema: Any = CITY, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, **more}}


@pytest.fixture(scope="module")
def server(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Both models, and SmolLM2 once more with a template that makes it reason."""
    template = tmp_path_factory.mktemp("template") / "think.jinja"
    template.write_text(
        "{%- if raise_with is defined %}{{ raise_exception(raise_with ~ ' ' ~ reasoning_effort ~ ' ' ~ enable_thinking)"
        " }}{% endif -%}"
        "{%- for word in ['one', 'two', 'three', 'four'] %}<|im_start|>user\nSay {{ word }}.<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nI am to say {{ word }}.\n</think>\n\n{{ word }}<|im_end|>\n{% endfor -%}"
        "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}"
        "<|im_start|>assistant\n{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
    )
    both = two_models(weights, max_seqs=8).model_dump(exclude_unset=True)
    thinker = {
        "model_id": str(weights["smollm2"]),
        "alias": "thinker",
        "chat_template": str(template),
        "device": {"max_seq_len": 2048},
    }
    with serving(validate_config({**both, "models": [*both["models"], thinker]}, source="test", base=ROOT)) as running:
        yield running


def whole(server: RunningServer, **body: Any) -> Any:
    chosen = {"model": "smollm2", "messages": QUESTION, "max_tokens": 120, "temperature": 0} | body
    with server.client() as client:
        return client.chat.completions.create(**chosen)


def streamed(server: RunningServer, **body: Any) -> tuple[str, str, str | None]:
    """What was said, what was thought, and why it ended."""
    said, thought, reason = "", "", None
    with server.client() as client:
        chosen = {"model": "smollm2", "messages": QUESTION, "max_tokens": 120, "temperature": 0, "stream": True} | body
        for chunk in client.chat.completions.create(**chosen):
            for choice in chunk.choices:
                said += choice.delta.content or ""
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                reason = choice.finish_reason or reason
    return said, thought, reason


@pytest.mark.parametrize("model", ["smollm2", "google/gemma3"])
@pytest.mark.parametrize("strict", [True, False])
def test_an_answer_follows_its_schema_whole_and_streamed(server: RunningServer, model: str, strict: bool) -> None:
    demand = {"model": model, "response_format": schema_format(strict=strict)}
    choice = whole(server, **demand).choices[0]
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), CITY)
    assert streamed(server, **demand) == (choice.message.content, "", "stop")


def test_drawn_answers_follow_it_too_each_for_itself(server: RunningServer) -> None:
    drawn = whole(server, n=3, temperature=1.5, seed=3, response_format=schema_format(strict=True), presence_penalty=1)
    said = [choice.message.content for choice in drawn.choices]
    assert len(set(said)) > 1
    for text in said:
        jsonschema.validate(json.loads(text), CITY)


def test_a_json_object_begins_with_the_first_token(server: RunningServer) -> None:
    said = whole(server, response_format={"type": "json_object"}, max_tokens=60).choices[0]
    assert said.message.content.startswith("{")
    if said.finish_reason == "stop":
        assert isinstance(json.loads(said.message.content), dict)


@pytest.mark.parametrize(
    ("grammar", "allowed"),
    [
        (YES, {"yes, sure", "yes, never", "no, sure", "no, never"}),
        ({"type": "json_schema", "value": {"enum": [1, "é"]}}, {"1", '"é"'}),
        ({"type": "lark", "value": 'start: "a" b\nb: "b"'}, {"ab"}),
        ({"type": "llguidance", "value": {"grammars": [{"lark_grammar": 'start: "x" | "y"'}]}}, {"x", "y"}),
    ],
)
def test_every_kind_of_grammar_is_enforced_in_chats_and_in_texts(
    server: RunningServer, grammar: dict[str, Any], allowed: set[str]
) -> None:
    said = whole(server, extra_body={"grammar": grammar}).choices[0]
    assert (said.message.content in allowed, said.finish_reason) == (True, "stop")
    with server.client() as client:
        text = client.completions.create(
            model="smollm2", prompt="So: ", max_tokens=30, temperature=0, extra_body={"grammar": grammar}
        )
    assert text.choices[0].text in allowed


def test_a_text_may_demand_a_schema_as_a_chat_does(server: RunningServer) -> None:
    body = {"model": "smollm2", "prompt": "Paris:", "max_tokens": 120, "response_format": schema_format(strict=True)}
    said = server.post("/v1/completions", body).json()["choices"][0]
    jsonschema.validate(json.loads(said["text"]), CITY)


def test_what_ends_an_answer_early_ends_one_of_a_grammar(server: RunningServer) -> None:
    full = whole(server, response_format=schema_format()).choices[0].message.content
    short = whole(server, response_format=schema_format(), max_tokens=8).choices[0]
    assert short.finish_reason == "length"
    assert full.startswith(short.message.content)
    cut = whole(server, response_format=schema_format(), stop=["population"]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (full[: full.index("population")], "stop")


def test_a_grammar_that_is_complete_ends_an_answer_that_ignores_end_tokens(server: RunningServer) -> None:
    said = whole(server, extra_body={"grammar": YES, "ignore_eos": True}).choices[0]
    assert (said.finish_reason, said.message.content.split(", ")[0] in ("yes", "no")) == ("stop", True)


def test_no_token_is_spent_on_the_end_of_a_grammar(server: RunningServer) -> None:
    said = whole(server, extra_body={"grammar": YES}, logprobs=True)
    assert len(said.choices[0].logprobs.content) == said.usage.completion_tokens


def test_biases_choose_only_among_what_is_allowed(server: RunningServer, weights: dict[str, Path]) -> None:
    loaded = Weights([weights["smollm2"]], on_progress=lambda _: True)
    ids = {word: Model(loaded).tokenize(word, add_special=False)[0] for word in ("yes", "no", "maybe")}
    loaded.free()
    said = {
        word: whole(server, extra_body={"grammar": YES}, logit_bias={str(ids[word]): 100}).choices[0].message.content
        for word in ids
    }
    assert said["yes"].startswith("yes,")
    assert said["no"].startswith("no,")
    assert not said["maybe"].startswith("maybe")


@pytest.mark.parametrize(
    ("demand", "param"),
    [
        ({"extra_body": {"grammar": {"type": "regex", "value": "("}}}, "grammar"),
        ({"extra_body": {"grammar": {"type": "lark", "value": "start: <[9999999]>"}}}, None),
        ({"extra_body": {"grammar": {"type": "regex", "value": "\ud800"}}}, None),
        ({"response_format": schema_format({"type": "array", "uniqueItems": True}, strict=True)}, "response_format"),
        ({"response_format": schema_format({"$ref": "https://example.com/x"})}, "response_format"),
        ({"response_format": schema_format({"properties": {f"p{n}": {} for n in range(6000)}})}, None),
    ],
)
def test_what_cannot_be_enforced_is_the_clients_error_and_nobody_elses(
    server: RunningServer, demand: dict[str, Any], param: str | None
) -> None:
    with pytest.raises((BadRequestError, UnicodeEncodeError)) as refused:
        whole(server, **demand)
    if param is not None:
        assert refused.value.param == param  # type: ignore[union-attr]
    assert whole(server, extra_body={"grammar": YES}).choices[0].finish_reason == "stop"


def test_reasoning_is_apart_from_the_answer_streamed_or_whole(server: RunningServer) -> None:
    ask = {"model": "thinker", "messages": [{"role": "user", "content": "Say five."}]}
    message = whole(server, **ask).choices[0].message
    assert message.content.strip() == "five"
    assert "say five" in message.reasoning_content
    assert streamed(server, **ask) == (message.content, message.reasoning_content, "stop")


def test_a_schema_is_of_the_answer_behind_free_reasoning(server: RunningServer) -> None:
    ask = {"model": "thinker", "messages": [{"role": "user", "content": "Say five."}]}
    ask["response_format"] = schema_format({"enum": ["4", "5"]}, strict=True)
    message = whole(server, **ask).choices[0].message
    assert message.reasoning_content
    assert json.loads(message.content) in ("4", "5")
    assert streamed(server, **ask) == (message.content, message.reasoning_content, "stop")


def test_reasoning_that_is_forbidden_does_not_happen(server: RunningServer) -> None:
    ask = {"model": "thinker", "messages": [{"role": "user", "content": "Say five."}], "max_tokens": 8}
    thinking = whole(server, **ask)
    for forbidding in ({"reasoning_effort": "none"}, {"extra_body": {"enable_thinking": False}}):
        answered = whole(server, **ask, **forbidding)
        assert answered.usage.prompt_tokens < thinking.usage.prompt_tokens


@pytest.mark.parametrize("demand", [{}, {"response_format": schema_format({"enum": ["4", "5"]})}])
def test_reasoning_ends_at_its_budget_and_is_counted(server: RunningServer, demand: dict[str, Any]) -> None:
    ask = {"model": "thinker", "messages": [{"role": "user", "content": "Say five."}], "extra_body": {}} | demand
    free = whole(server, **ask)
    assert free.usage.completion_tokens_details.reasoning_tokens > 5
    limited = whole(server, **ask | {"extra_body": {"thinking_budget": 3}})
    message, used = limited.choices[0].message, limited.usage
    assert free.choices[0].message.reasoning_content.startswith(message.reasoning_content)
    assert message.content
    # The marker is counted, which is several tokens in this vocabulary.
    assert 3 < used.completion_tokens_details.reasoning_tokens < 3 + 10
    if demand:
        assert json.loads(message.content) in ("4", "5")
    assert streamed(server, **ask | {"extra_body": {"thinking_budget": 3}})[:2] == (
        message.content,
        message.reasoning_content,
    )


def test_what_the_template_is_told_reaches_it(server: RunningServer) -> None:
    told = {"chat_template_kwargs": {"raise_with": "told"}, "enable_thinking": True}
    with pytest.raises(BadRequestError, match="told high True"):
        whole(server, model="thinker", reasoning_effort="high", extra_body=told)


# Below the server: what happens to engines meanwhile.


@pytest.fixture
def smollm2(weights: dict[str, Path]) -> Path:
    return weights["smollm2"]


DEMAND = {"response_format": schema_format(strict=True), "max_tokens": 120, "ignore_eos": False}
PARIS = Text("Paris, as JSON:\n")
FIRST = SequenceId(0)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.8, seed=5)])
def test_a_suspended_answer_goes_on_with_its_grammar(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    undisturbed = engine(smollm2)
    expected = undisturbed.answer(PARIS, sampling, **DEMAND)
    undisturbed.stopped(Stop())
    jsonschema.validate(json.loads(expected), CITY)
    steps = Steps(monkeypatch)
    first = engine(smollm2)
    steps.after(10, partial(first.send, Stop(suspend=True, keep_bytes=2**40)))
    first.submit(0, PARIS, sampling, **DEMAND)
    states = first.suspended()
    second = engine(smollm2)
    second.texts = dict(first.texts)
    second.send(*map(Resume, states))
    second.finished()
    second.stopped(Stop())
    assert second.texts[FIRST] == expected


def test_guesses_change_nothing_that_a_grammar_leads_to(smollm2: Path) -> None:
    demand = DEMAND | {"prediction": '{"city": "Paris", "population": 2, "is_capital": true, "kind": "city"}'}
    plain, guessing = engine(smollm2), engine(smollm2, prompt_lookup=True)
    expected = plain.answer(PARIS, **DEMAND)
    assert guessing.answer(PARIS, **demand) == expected
    plain.stopped(Stop())
    guessing.stopped(Stop())


class SlowGrammars:
    """Has grammars wait to be made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self._goes_on = threading.Event(), threading.Event()
        make = chat_format.grammar_of

        def waiting(*arguments: Any) -> str | None:
            self.begun.set()
            assert self._goes_on.wait(WAIT_S)
            return make(*arguments)

        monkeypatch.setattr(chat_format, "grammar_of", waiting)

    def go_on(self) -> None:
        self._goes_on.set()


def waiting_for_its_grammar(path: Path, grammars: SlowGrammars) -> Driven:
    driven = engine(path)
    driven.submit(0, PARIS, **DEMAND)
    assert grammars.begun.wait(WAIT_S)
    return driven


def ended(driven: Driven, number: int = 0) -> Any:
    driven.until(lambda: SequenceId(number) in driven.ended)
    return driven.ended[SequenceId(number)]


def test_others_are_answered_while_a_grammar_is_made(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = SlowGrammars(monkeypatch)
    driven = waiting_for_its_grammar(smollm2, grammars)
    assert driven.answer("The sea", number=1, max_tokens=4)
    driven.submit(2, PARIS, **DEMAND)
    driven.send(Cancel(SequenceId(2)), Cancel(FIRST))
    assert isinstance(ended(driven), Cancelled)
    assert isinstance(ended(driven, 2), Cancelled)
    grammars.go_on()
    assert driven.answer(PARIS, number=3, **DEMAND)
    driven.stopped(Stop())


@pytest.mark.parametrize(("stop", "outcome"), [(Stop(), Cancelled), (Stop(suspend=True, keep_bytes=2**40), Returned)])
def test_a_stop_does_not_wait_for_grammars(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch, stop: Stop, outcome: type
) -> None:
    grammars = SlowGrammars(monkeypatch)
    driven = waiting_for_its_grammar(smollm2, grammars)
    driven.send(stop)
    assert isinstance(ended(driven), outcome)
    grammars.go_on()
    driven.stopped()


def test_a_grammar_that_fails_in_any_way_fails_its_request_alone(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        pass

    def panics(*_: Any) -> str:
        raise Panic("in Rust")

    driven = engine(smollm2)
    with monkeypatch.context() as patched:
        patched.setattr(chat_format, "grammar_of", panics)
        driven.submit(0, PARIS, **DEMAND)
        failed = ended(driven)
    assert isinstance(failed, Failed)
    assert "in Rust" in str(failed.error)
    assert driven.answer(PARIS, number=1, **DEMAND)
    driven.stopped(Stop())


def test_a_grammar_that_no_process_is_there_to_test_is_no_fault_of_the_request(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise GrammarUntried("others had all processes for 20 s")

    driven = engine(smollm2)
    with monkeypatch.context() as patched:
        patched.setattr(GrammarTrials, "check", refuses)
        driven.submit(0, PARIS, **DEMAND)
        failed = ended(driven)
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.error.status) == ("grammar_untried", 503)
    driven.stopped(Stop())


def test_a_grammar_that_breaks_fails_its_answer_alone(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, left = Constraint.apply, [6]

    def breaking(constraint: Constraint, logits: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise ConstraintBroken("too complex")
        apply(constraint, logits)

    monkeypatch.setattr(Constraint, "apply", breaking)
    driven = engine(smollm2)
    driven.submit(1, "The sea", max_tokens=30)
    driven.submit(0, PARIS, **DEMAND)
    failed = ended(driven)
    assert isinstance(failed, Failed)
    assert "too complex" in str(failed.error)
    assert driven.finished(1).usage.completion_tokens == 30
    assert driven.answer(PARIS, number=2, **DEMAND)
    driven.stopped(Stop())


@pytest.mark.parametrize("seed", range(3))
def test_a_model_without_sense_says_json_of_a_real_vocabulary(smollm2: Path, seed: int) -> None:
    loaded = Weights([smollm2], on_progress=lambda _: True)
    model = Model(loaded)
    compiler = GrammarCompiler(model.vocabulary)
    make = chat_format.text_grammar(_demanding(schema_format(strict=True)))
    assert make is not None
    made = compiler.compile(make, lambda _: None).result(WAIT_S)
    assert made is not None
    tokens = [model.piece(token) for token in range(model.vocab_size)]
    said, _ = babble(made, tokens, model.end_tokens, seed)
    compiler.close()
    loaded.free()
    jsonschema.validate(json.loads(said.decode()), CITY)


def _demanding(response_format: dict[str, Any]) -> Any:
    return Submit(FIRST, PARIS, response_format=response_format)
