"""What a caller may see and have: the one place where that is decided."""

from __future__ import annotations

import pytest

from modelyard.errors import EngineError, InsufficientMemory, InvalidRequest, ModelLoadFailed
from modelyard.yard.requests.context import IN_THE_LOG, OTHER_MODELS, Caller
from modelyard.yard.requests.requests import WaitOptions
from modelyard.yard.requests.router import Router
from modelyard.yard.stats.status import Eviction, Plan

ROUTER = Router({"smol": ("smol", "org/Smol-GGUF"), "secret": ("secret", "org/Secret-GGUF"), "g": ("g",)}, "secret")


def caller(*models: str, scopes: tuple[str, ...] = ("inference", "read"), **limits: int) -> Caller:
    made = Caller()
    made.models = frozenset(models) if models else None
    made.scopes = frozenset(scopes)  # type: ignore[arg-type]
    for name, value in limits.items():
        setattr(made, name, value)
    ROUTER.describe_models_to(made)
    return made


def test_models_that_a_caller_must_not_know_of_have_one_name_together() -> None:
    assert caller("smol").visible_names(["secret", "smol", "g"]) == ("smol", OTHER_MODELS)
    assert caller().visible_names(["secret", "smol"]) == ("secret", "smol")


@pytest.mark.parametrize(
    "reason",
    [
        "Its draft model 'secret': it is damaged.",
        "The file /models/Secret-GGUF is damaged.",
        "It waits for org/Secret-GGUF, which is busy",
        "It waits for secret.",
        "g is in its way",
    ],
)
def test_a_reason_that_speaks_of_a_hidden_model_stays_in_the_log(reason: str) -> None:
    assert caller("smol").visible_reason(reason) == IN_THE_LOG
    assert caller().visible_reason(reason) == reason


@pytest.mark.parametrize("reason", ["the file smol.gguf is damaged", "signal 11 (gdb says nothing)", "secretly broken"])
def test_any_other_reason_is_visible_with_the_read_scope(reason: str) -> None:
    assert caller("smol").visible_reason(reason) == reason
    assert caller("smol", scopes=("inference",)).visible_reason(reason) == IN_THE_LOG


def test_a_name_of_several_words_is_found_as_well() -> None:
    asking = Caller()
    asking.models = frozenset({"smol"})
    Router({"smol": ("smol",), "my secret (v2)": ("my secret (v2)",)}, None).describe_models_to(asking)
    assert asking.visible_reason("It makes room for my secret (v2) first") == IN_THE_LOG


def test_errors_name_no_hidden_models() -> None:
    full = InsufficientMemory("smol", 10, 5, ["secret", "smol"])
    assert caller().visible_error(full) is full
    seen = str(caller("smol").visible_error(full))
    assert "secret" not in seen
    assert f"beside the pinned smol, {OTHER_MODELS}" in seen
    failed = ModelLoadFailed("smol", "Its draft model 'secret' is damaged", 5)
    hidden = caller("smol").visible_error(failed)
    assert isinstance(hidden, ModelLoadFailed)
    assert (hidden.reason, hidden.retry_after_s) == (IN_THE_LOG, 5)
    other = EngineError("smol", "llama_decode returned -3")
    assert caller("smol").visible_error(other) is other


def test_a_plan_counts_hidden_models_together() -> None:
    gone = (Eviction("secret", 5, "idle for 3 s"), Eviction("smol", 7, "idle"), Eviction("g", 2, "busy"))
    plan = Plan("smol", "evicts", 10, 0, 20, gone, 1.0)
    assert plan.visible_to(caller()) is plan
    assert plan.visible_to(caller("smol")).evicts == (
        Eviction("smol", 7, "idle"),
        Eviction(OTHER_MODELS, 7, "2 models that this key may not see"),
    )


@pytest.mark.parametrize(
    ("asked", "highest", "own", "has"),
    [
        (100, 0, 0, 0),
        (100, 5, 0, 5),
        (3, 5, 0, 3),
        (-7, 0, 0, -7),
        (100, 0, 10, 10),
        (100, -50, 0, 0),
        (None, 0, 9, None),
    ],
)
def test_a_request_is_as_urgent_as_its_caller_may_be_and_no_less_than_one_that_asks_for_nothing(
    asked: int | None, highest: int, own: int, has: int | None
) -> None:
    assert caller(max_priority=highest).permitted_wait(WaitOptions(asked), own).priority == has


def test_only_who_may_unload_models_says_how_long_they_stay() -> None:
    asked = WaitOptions(None, 3.0, 0.0)
    assert caller().permitted_wait(asked, 0) == WaitOptions(None, 3.0, None)
    assert caller(scopes=("inference", "admin")).permitted_wait(asked, 0) == asked
    assert Caller().permitted_wait(asked, 0) == asked


def test_an_answer_is_no_longer_than_its_key_may_have() -> None:
    asking = caller(max_tokens=100)
    for fine in (None, 1, 100):
        asking.check_answer(fine)
    with pytest.raises(InvalidRequest, match="101 tokens are wanted for the answer, and this API key may have 100"):
        asking.check_answer(101)


def test_places_are_shared_where_there_are_others() -> None:
    asking = caller()
    asking.owner = b"k"
    assert asking.place_owner is None
    asking.shares_places = True
    assert asking.place_owner == b"k"
