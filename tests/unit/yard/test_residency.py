"""Which model is resident, and who may use it: every rule, every race that has a name, and all the others."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelyard.errors import ModelLoadFailed, QueueFull, ShuttingDown
from modelyard.yard.residency import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    CloseAsked,
    Complete,
    EngineDied,
    Free,
    Freed,
    Grant,
    LoadFailed,
    LoadFinished,
    Reject,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    Residence,
    Residency,
    StartLoad,
    Tick,
    UnloadAsked,
    step,
)


class Play:
    """A residency, fed event by event. Refusals are shown as (request, code); their errors are kept by request."""

    def __init__(self, *models, most_requests=8):
        self.state = Residency.of(models or ("a",), most_requests)
        self.errors = {}

    def __call__(self, *events):
        shown = []
        for event in events:
            self.state, effects = step(self.state, event)
            for effect in effects:
                if isinstance(effect, Reject):
                    self.errors[effect.request] = effect.error
                    shown.append((effect.request, effect.error.code))
                else:
                    shown.append(effect)
        return shown

    @property
    def a(self):
        return self.state.models["a"]


def arrive(*requests):
    return [RequestArrived("a", request) for request in requests]


def end(*requests):
    return [RequestEnded("a", request) for request in requests]


@pytest.fixture
def play():
    return Play()


@pytest.fixture
def loaded(play):
    """Model a, loaded, with nobody in it."""
    play(ReloadAsked("a", 100), LoadFinished("a"))
    return play


@pytest.fixture
def failed(play):
    """Model a, whose load has just failed."""
    play(*arrive(100), LoadFailed("a", "bad magic"))
    return play


# Requests


def test_many_requests_for_an_unloaded_model_cause_one_load_and_are_served_in_order(play):
    assert play(*arrive(1, 2, 3)) == [StartLoad("a")]
    assert play(LoadFinished("a")) == [Grant("a", 1), Grant("a", 2), Grant("a", 3)]
    assert play.a.leases == {1, 2, 3}
    assert play.a.line == ()


def test_a_loaded_model_is_leased_at_once(loaded):
    assert loaded(*arrive(1)) == [Grant("a", 1)]


def test_a_client_that_leaves_while_queued_costs_nobody_a_slot():
    play = Play(most_requests=2)
    play(*arrive(1, 2))
    assert play(*end(1), *arrive(3)) == []
    assert play(LoadFinished("a")) == [Grant("a", 2), Grant("a", 3)]


def test_a_load_that_everybody_left_ends_as_a_loaded_model(play):
    play(*arrive(1), *end(1))
    assert play(LoadFinished("a")) == []
    assert play.a.residence is Residence.LOADED


def test_the_request_beyond_the_limit_is_refused_while_earlier_ones_run_or_wait():
    play = Play(most_requests=2)
    play(*arrive(1, 2))
    assert play(*arrive(3)) == [(3, "queue_full")]
    play(LoadFinished("a"))
    assert play(*arrive(4)) == [(4, "queue_full")]
    assert isinstance(play.errors[4], QueueFull)
    assert play.errors[4].retry_after_s
    assert play(*end(1), *arrive(5)) == [Grant("a", 5)]


def test_unloads_and_reloads_take_no_request_a_place():
    play = Play(most_requests=1)
    play(UnloadAsked("a", 1), ReloadAsked("a", 2), UnloadAsked("a", 3))
    assert play(*arrive(4)) == []


def test_the_end_of_an_unknown_request_is_ignored(loaded):
    loaded(*arrive(1))
    before = loaded.state
    assert loaded(*end(99)) == []
    assert loaded.state == before


def test_a_model_is_loaded_while_another_serves():
    play = Play("a", "b")
    play(*arrive(1), LoadFinished("a"))
    assert play(RequestArrived("b", 2)) == [StartLoad("b")]
    assert play(LoadFailed("b", "no room")) == [(2, "model_load_failed")]
    assert play(*arrive(3)) == [Grant("a", 3)]


# Unload


def test_an_unload_waits_for_the_last_lease(loaded):
    loaded(*arrive(1, 2))
    assert loaded(UnloadAsked("a", 3)) == []
    assert loaded.a.is_draining
    assert loaded(*end(2)) == []
    assert loaded(*end(1)) == [Free("a")]
    assert loaded(Freed("a")) == [Complete("a", 3)]
    assert loaded.a.residence is Residence.UNLOADED


def test_a_loaded_model_that_nobody_wants_gone_is_not_draining(loaded):
    assert not loaded.a.is_draining


def test_requests_that_arrive_during_a_drain_wait_and_cause_one_reload(loaded):
    loaded(*arrive(1), UnloadAsked("a", 2))
    assert loaded(*arrive(3, 4)) == []
    assert loaded(*end(1)) == [Free("a")]
    assert loaded(*arrive(5)) == []
    assert loaded(Freed("a")) == [Complete("a", 2), StartLoad("a")]
    assert loaded(LoadFinished("a")) == [Grant("a", 3), Grant("a", 4), Grant("a", 5)]


def test_an_unload_during_a_load_serves_those_who_came_before_then_frees(play):
    play(*arrive(1), UnloadAsked("a", 2), *arrive(3))
    assert play(LoadFinished("a")) == [Grant("a", 1)]
    assert play(*end(1)) == [Free("a")]
    assert play(Freed("a")) == [Complete("a", 2), StartLoad("a")]
    assert play(LoadFinished("a")) == [Grant("a", 3)]


def test_an_unload_during_a_load_that_nobody_waits_for_frees_once_it_is_loaded(play):
    assert play(*arrive(1), UnloadAsked("a", 2), *end(1)) == [StartLoad("a")]
    assert play(LoadFinished("a")) == [Free("a")]


def test_two_unloads_free_once_and_are_both_answered(loaded):
    loaded(*arrive(1), UnloadAsked("a", 2), UnloadAsked("a", 3))
    assert loaded(*end(1)) == [Free("a")]
    assert loaded(Freed("a")) == [Complete("a", 2), Complete("a", 3)]


def test_unloading_what_is_not_loaded_is_done_at_once(play):
    assert play(UnloadAsked("a", 1)) == [Complete("a", 1)]


# Reload


def test_reloading_what_is_loaded_is_done_at_once(loaded):
    assert loaded(ReloadAsked("a", 1)) == [Complete("a", 1)]


def test_a_reload_during_a_load_waits_for_that_load(play):
    assert play(*arrive(1), ReloadAsked("a", 2)) == [StartLoad("a")]
    assert play(LoadFinished("a")) == [Grant("a", 1), Complete("a", 2)]


def test_a_reload_during_a_drain_waits_and_loads_again(loaded):
    loaded(*arrive(1), UnloadAsked("a", 2))
    assert loaded(ReloadAsked("a", 3), *end(1)) == [Free("a")]
    assert loaded(Freed("a")) == [Complete("a", 2), StartLoad("a")]
    assert loaded(LoadFinished("a")) == [Complete("a", 3)]


# Failures


def test_a_failed_load_tells_everybody_who_waited_and_satisfies_an_unload(play):
    play(*arrive(1, 2), ReloadAsked("a", 3), UnloadAsked("a", 4), *arrive(5))
    assert play(LoadFailed("a", "bad magic")) == [
        (1, "model_load_failed"),
        (2, "model_load_failed"),
        (3, "model_load_failed"),
        Complete("a", 4),
        (5, "model_load_failed"),
    ]
    assert all(play.errors[request].reason == "bad magic" for request in (1, 2, 3, 5))
    assert play.errors[1].retry_after_s == 1


def test_after_a_failed_load_requests_are_refused_until_the_backoff_is_over(failed):
    assert failed(Tick(FIRST_BACKOFF_S * 0.9), *arrive(1)) == [(1, "model_load_failed")]
    assert failed.errors[1].reason == "bad magic"
    assert failed.errors[1].retry_after_s == 1
    assert failed(Tick(FIRST_BACKOFF_S), *arrive(2)) == [StartLoad("a")]
    assert failed(LoadFinished("a")) == [Grant("a", 2)]


def test_a_reload_ignores_the_backoff(failed):
    assert failed(ReloadAsked("a", 1)) == [StartLoad("a")]
    assert failed(*arrive(2)) == []
    assert failed(LoadFinished("a")) == [Complete("a", 1), Grant("a", 2)]


def test_the_backoff_doubles_with_each_failure_up_to_its_limit_and_starts_over_after_a_success(play):
    waits = []
    for request in range(9):
        play(ReloadAsked("a", request), LoadFailed("a", "no"))
        waits.append(play.errors[request].retry_after_s)
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST_BACKOFF_S, LONGEST_BACKOFF_S, LONGEST_BACKOFF_S]
    play(ReloadAsked("a", 20), LoadFinished("a"), EngineDied("a", "oops"), *arrive(21))
    assert play.errors[21].retry_after_s == 1


def test_a_model_that_fails_for_days_still_says_so(play):
    for request in range(1100):
        assert play(ReloadAsked("a", request), LoadFailed("a", "no")) == [
            StartLoad("a"),
            (request, "model_load_failed"),
        ]
    assert play.errors[1099].retry_after_s == LONGEST_BACKOFF_S


def test_unloading_a_failed_model_forgets_the_failure(failed):
    assert failed(UnloadAsked("a", 1)) == [Complete("a", 1)]
    assert failed.a.residence is Residence.UNLOADED
    assert failed(*arrive(2)) == [StartLoad("a")]


def test_after_an_engine_died_its_model_is_failed_until_the_backoff_is_over(loaded):
    loaded(*arrive(1, 2))
    assert loaded(*end(1, 2), EngineDied("a", "segfault")) == []
    assert loaded.a.residence is Residence.FAILED
    assert loaded(*arrive(3)) == [(3, "model_load_failed")]
    assert loaded.errors[3].reason == "segfault"
    assert loaded(Tick(FIRST_BACKOFF_S), *arrive(4)) == [StartLoad("a")]


def test_leases_of_a_dead_engine_may_end_after_its_death(loaded):
    loaded(*arrive(1), EngineDied("a", "segfault"))
    assert loaded(*end(1)) == []
    assert loaded.a.leases == frozenset()


def test_an_engine_that_dies_while_draining_satisfies_the_unload_and_those_behind_are_served(loaded):
    loaded(*arrive(1), UnloadAsked("a", 2), *arrive(3))
    assert loaded(EngineDied("a", "segfault"), *end(1)) == [Complete("a", 2), StartLoad("a")]
    assert loaded(LoadFinished("a")) == [Grant("a", 3)]


def test_an_engine_that_dies_while_it_is_freed_satisfies_the_unload(loaded):
    assert loaded(UnloadAsked("a", 1)) == [Free("a")]
    assert loaded(EngineDied("a", "segfault")) == [Complete("a", 1)]
    assert loaded.a.residence is Residence.UNLOADED


def test_an_engine_that_dies_while_loading_is_a_failed_load_and_not_tried_again_for_the_same_callers(play):
    play(ReloadAsked("a", 1), *arrive(2), UnloadAsked("a", 3))
    assert play(EngineDied("a", "out of memory")) == [
        (1, "model_load_failed"),
        (2, "model_load_failed"),
        Complete("a", 3),
    ]
    assert play.errors[1].reason == "out of memory"


# Close


def test_a_close_refuses_all_who_wait_and_frees_without_waiting_for_leases():
    play = Play("a", "b", "c", "d")
    play(*arrive(1), LoadFinished("a"), UnloadAsked("a", 2), *arrive(3))
    play(RequestArrived("b", 4), ReloadAsked("b", 5))
    play(ReloadAsked("c", 6), LoadFinished("c"), UnloadAsked("c", 7))
    assert play(CloseAsked()) == [
        (2, "shutting_down"),
        (3, "shutting_down"),
        Free("a"),
        (4, "shutting_down"),
        (5, "shutting_down"),
        Free("b"),
        (7, "shutting_down"),
    ]
    assert play(*end(1), Freed("a"), Freed("b"), Freed("c")) == []
    assert {model.residence for model in play.state.models.values()} == {Residence.UNLOADED}


def test_after_a_close_everybody_is_refused(loaded):
    loaded(CloseAsked())
    asked = [*arrive(1), UnloadAsked("a", 2), ReloadAsked("a", 3)]
    assert loaded(*asked) == [(1, "shutting_down"), (2, "shutting_down"), (3, "shutting_down")]
    loaded(Freed("a"))
    assert loaded(*arrive(4)) == [(4, "shutting_down")]


def test_a_load_that_ends_during_a_close_does_not_bring_the_model_back(play):
    play(*arrive(1), CloseAsked())
    assert play(LoadFinished("a")) == []
    assert play.a.residence is Residence.FREEING
    assert play(Freed("a")) == []
    assert play.a.residence is Residence.UNLOADED


def test_a_second_close_does_nothing(loaded):
    assert loaded(CloseAsked()) == [Free("a")]
    assert loaded(CloseAsked()) == []


# Everything at once

MODELS = ("a", "b")
MOST_REQUESTS = 3
LOAD_OUTCOMES = st.sampled_from(["finishes", "fails", "dies"])


class Interleavings(RuleBasedStateMachine):
    """Feeds events in any order in which a conductor could, and holds every step to the invariants.

    Beside the residency it keeps a record of its own: what is on its way (each StartLoad and each Free has one
    outcome), who stands in which line, and who holds a lease.
    """

    def __init__(self):
        super().__init__()
        self.state = Residency.of(MODELS, MOST_REQUESTS)
        self.loading = set()
        self.loaded = set()
        self.freeing = set()
        self.lines = {model: [] for model in MODELS}
        self.leases = {model: [] for model in MODELS}
        self.outcomes = {}
        self.requests = 0

    # What may happen

    @rule(model=st.sampled_from(MODELS))
    def request_arrives(self, model):
        self.ask(RequestArrived, model)

    @rule(model=st.sampled_from(MODELS))
    def unload_is_asked(self, model):
        self.ask(UnloadAsked, model)

    @rule(model=st.sampled_from(MODELS))
    def reload_is_asked(self, model):
        self.ask(ReloadAsked, model)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def waiting_request_leaves(self, data):
        model, request = data.draw(st.sampled_from(self.waiting()))
        self.lines[model].remove((RequestArrived, request))
        self.outcomes[request].append("left")
        self.feed(RequestEnded(model, request))

    @precondition(lambda self: self.leased())
    @rule(data=st.data())
    def running_request_ends(self, data):
        self.end_lease(*data.draw(st.sampled_from(self.leased())))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def ended_request_ends_again(self, data):
        request = data.draw(st.integers(1, self.requests))
        if any(request == known for _, known in (*self.waiting(), *self.leased())):
            return
        if any(request == known for line in self.lines.values() for _, known in line):
            return
        before = self.state
        self.feed(RequestEnded("a", request))
        assert self.state == before

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), outcome=LOAD_OUTCOMES)
    def load_ends(self, data, outcome):
        self.end_load(data.draw(st.sampled_from(sorted(self.loading))), outcome)

    @precondition(lambda self: self.freeing - self.loading)
    @rule(data=st.data(), dies=st.booleans())
    def free_ends(self, data, dies):
        self.end_free(data.draw(st.sampled_from(sorted(self.freeing - self.loading))), dies=dies)

    @precondition(lambda self: self.freeing & self.loading)
    @rule(data=st.data())
    def load_is_given_up(self, data):
        model = data.draw(st.sampled_from(sorted(self.freeing & self.loading)))
        self.loading.remove(model)
        self.end_free(model)

    @precondition(lambda self: self.loaded)
    @rule(data=st.data(), leases_end_first=st.booleans())
    def engine_dies(self, data, leases_end_first):
        model = data.draw(st.sampled_from(sorted(self.loaded)))
        if leases_end_first:
            for request in list(self.leases[model]):
                self.end_lease(model, request)
        self.end_engine(model)

    @rule(seconds=st.sampled_from([0.0, 0.4, FIRST_BACKOFF_S, LONGEST_BACKOFF_S]))
    def time_passes(self, seconds):
        self.feed(Tick(self.state.now + seconds))

    @rule(reason=st.sampled_from(["rarely"] * 15 + ["now"]))
    def close(self, reason):
        if reason == "now":
            self.feed(CloseAsked())

    @rule(outcomes=st.lists(LOAD_OUTCOMES, min_size=1, max_size=4))
    def everything_settles(self, outcomes):
        self.settle(outcomes)

    def teardown(self):
        self.settle(["finishes"])
        self.feed(CloseAsked())
        self.settle(["finishes"])
        assert not self.loaded

    # How it happens

    def waiting(self):
        return [(m, request) for m, line in self.lines.items() for kind, request in line if kind is RequestArrived]

    def leased(self):
        return [(model, request) for model, requests in self.leases.items() for request in requests]

    def ask(self, kind, model):
        self.requests += 1
        self.outcomes[self.requests] = []
        self.lines[model].append((kind, self.requests))
        self.feed(kind(model, self.requests))

    def end_lease(self, model, request):
        self.leases[model].remove(request)
        self.feed(RequestEnded(model, request))

    def end_load(self, model, outcome):
        self.loading.remove(model)
        if outcome == "finishes":
            self.loaded.add(model)
            self.feed(LoadFinished(model))
        else:
            # A Free that was under way has no outcome of its own then.
            self.freeing.discard(model)
            self.feed(LoadFailed(model, "no") if outcome == "fails" else EngineDied(model, "no"))

    def end_free(self, model, *, dies=False):
        self.freeing.remove(model)
        self.loaded.discard(model)
        self.feed(EngineDied(model, "oops") if dies else Freed(model))

    def end_engine(self, model):
        self.loaded.remove(model)
        self.freeing.discard(model)
        self.feed(EngineDied(model, "oops"))

    def settle(self, load_outcomes):
        """Let everything that is under way end, and all leases: nobody is left waiting."""
        # Each wish causes one load and one free at most, so this many rounds are enough.
        rounds = 2 * sum(map(len, self.lines.values())) + len(MODELS) + 1
        for turn in range(rounds):
            for model in sorted(self.loading):
                self.end_load(model, load_outcomes[turn % len(load_outcomes)])
            for model, request in self.leased():
                self.end_lease(model, request)
            for model in sorted(self.freeing):
                self.end_free(model)
        assert not self.loading | self.freeing
        assert not any(self.lines.values()), "somebody waits, and nothing is on its way"
        assert all(not model.line and not model.leases for model in self.state.models.values())
        assert all(len(heard) == 1 for heard in self.outcomes.values())

    # What must hold

    def feed(self, event):
        before = self.state
        self.state, effects = step(before, event)
        for effect in effects:
            self.observe(event, effect)
        concerned = getattr(event, "model", None)
        if not isinstance(event, CloseAsked):
            for model in MODELS:
                assert model == concerned or self.state.models[model] == before.models[model]
            assert all(effect.model == concerned for effect in effects)

    def observe(self, event, effect):
        model = effect.model
        match effect:
            case StartLoad():
                assert model not in self.loading | self.loaded | self.freeing
                assert not self.state.is_closing
                assert self.lines[model], "nobody wants it"
                self.loading.add(model)
            case Free():
                assert model in self.loaded | self.loading
                assert model not in self.freeing
                if not isinstance(event, CloseAsked):
                    assert model in self.loaded
                    assert not self.leases[model]
                    assert self.lines[model][0][0] is UnloadAsked
                self.freeing.add(model)
            case Grant(_, request):
                assert model in self.loaded - self.freeing
                self.answer_first(model, RequestArrived, request)
                self.leases[model].append(request)
            case Complete(_, request):
                kind = self.answer_first(model, (UnloadAsked, ReloadAsked), request)
                assert (model in self.loaded) == (kind is ReloadAsked)
            case Reject(_, request, error):
                self.observe_refusal(event, model, request, error)

    def observe_refusal(self, event, model, request, error):
        is_at_the_door = getattr(event, "request", None) == request and not isinstance(error, ModelLoadFailed)
        if is_at_the_door:
            kind, last = self.lines[model].pop()
            assert last == request
            self.outcomes[request].append(error.code)
        else:
            kind = self.answer_first(model, (RequestArrived, UnloadAsked, ReloadAsked), request, error.code)
        match error:
            case QueueFull():
                assert kind is RequestArrived
                in_line = [other for other, _ in self.lines[model] if other is RequestArrived]
                assert len(in_line) + len(self.leases[model]) == MOST_REQUESTS
            case ShuttingDown():
                assert self.state.is_closing
            case ModelLoadFailed():
                assert kind is not UnloadAsked
                assert model not in self.loaded
                assert error.reason
                assert 1 <= error.retry_after_s <= LONGEST_BACKOFF_S

    def answer_first(self, model, kinds, request, outcome="answered"):
        """Everybody is answered in the order of arrival, and once."""
        kind, first = self.lines[model].pop(0)
        assert first == request
        assert issubclass(kind, kinds)
        self.outcomes[request].append(outcome)
        return kind

    @invariant()
    def states_are_what_is_under_way(self):
        for name in MODELS:
            residence = self.state.models[name].residence
            assert (residence is Residence.FREEING) == (name in self.freeing)
            assert (residence is Residence.LOADING) == (name in self.loading - self.freeing)
            assert (residence is Residence.LOADED) == (name in self.loaded - self.freeing)

    @invariant()
    def lines_and_leases_are_as_recorded(self):
        for name in MODELS:
            model = self.state.models[name]
            assert [wish.request for wish in model.line] == [request for _, request in self.lines[name]]
            assert model.leases == frozenset(self.leases[name])
            asked = [kind for kind, _ in self.lines[name] if kind is RequestArrived]
            assert len(asked) + len(model.leases) <= MOST_REQUESTS

    @invariant()
    def nobody_waits_for_nothing(self):
        for name in MODELS:
            if self.lines[name]:
                is_draining = self.state.models[name].is_draining and self.leases[name]
                assert name in self.loading | self.freeing or is_draining


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
