"""What becomes of requests when their engine, or its process, dies."""

import asyncio
from dataclasses import replace

import pytest

from modelyard.errors import (
    EngineError,
    HarmfulRequest,
    ModelFileChanged,
    ModelLoadFailed,
    ShuttingDown,
)
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Sampling, Text
from modelyard.protocol.requests import Embed, Stop, Submit
from modelyard.yard.residency.failures import FIRST_BACKOFF_S
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.controller_stage import SHORT_S, parked, soon, turn
from support.scripted_engines import MAX_WAIT_S, ScriptedEngine

# Engines that die


async def test_the_death_of_an_engine_ends_all_its_streams_and_no_others_and_the_next_request_restarts_it(
    stage_of, clock
):
    stage = stage_of()
    doomed = [(await stage.running())[1] for _ in range(3)]
    _, other = await stage.running("b")
    engine = await stage.engine()
    engine.say("half")
    engine.die("segfault")
    for generation in doomed:
        assert await soon(anext(generation)) == "half"
        with pytest.raises(EngineError, match="segfault"):
            await soon(anext(generation))
    assert not stage.model().leases
    survivor = await stage.engine("b")
    survivor.say("alive")
    assert await soon(anext(other)) == "alive"

    clock.now += FIRST_BACKOFF_S
    await stage.running()
    assert len(stage.engines.of("a")) == 2


async def about_to_die(stage):
    """The engine of a, loaded; when it is woken it dies, and receives no message from here on."""
    await soon(stage.controller.reload("a"))
    engine = await stage.engine()
    engine.hang()
    engine.die("segfault")
    return engine


async def test_a_request_that_a_dying_engine_did_not_receive_is_served_by_the_next(stage_of):
    stage = stage_of()
    engine = await about_to_die(stage)
    request, generation = stage.submit()
    assert stage.model().leases.keys() == {request}
    engine.wake()
    await soon(generation.accepted())
    assert engine._heard == []
    assert [submit.alone for submit in (await stage.engine(number=2)).heard(Submit)] == [False]


async def test_a_drain_whose_last_request_was_not_received_serves_it_and_loads_again_for_those_behind(stage_of):
    stage = stage_of()
    engine = await about_to_die(stage)
    _, generation = stage.submit()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    _, behind = stage.submit()
    engine.wake()
    await soon(generation.accepted())
    assert not unload.done()
    (await stage.engine(number=2)).finish()
    await soon(unload)
    await soon(behind.accepted())
    assert len(stage.engines.of("a")) == 3


async def test_when_a_death_is_published_the_model_does_not_serve_and_later_requests_go_to_the_next_engine(
    stage_of, clock
):
    stage = stage_of()
    _, doomed = await stage.running()
    engine = await stage.engine()
    used_bytes = stage.controller.state.used_bytes
    engine.die("segfault", frees=False)
    with pytest.raises(EngineError, match="segfault"):
        await soon(anext(doomed))
    assert (stage.model().load_state, stage.model().failure) == (LoadState.FREEING, "segfault")
    assert stage.controller.state.used_bytes == used_bytes

    request, late = stage.submit()
    leaver, _ = stage.submit()
    stage.controller.abandon(leaver)
    await turn()
    assert [waiter.request for waiter in stage.model().queue] == [request]
    assert len(stage.engines.of("a")) == 1
    engine.wake()
    await soon(late.accepted())
    assert [type(message) for message in engine._heard] == [Submit]
    assert len(stage.engines.of("a")) == 2
    assert stage.controller.state.used_bytes == used_bytes


async def test_a_close_waits_until_a_dying_engine_is_dead(stage_of):
    stage = stage_of()
    _, doomed = await stage.running()
    engine = await stage.engine()
    engine.die("segfault", frees=False)
    with pytest.raises(EngineError):
        await soon(anext(doomed))
    assert not await soon(stage.controller.close(SHORT_S))
    engine.wake()
    assert await soon(stage.controller.close(MAX_WAIT_S))


@pytest.mark.parametrize("dies", [ScriptedEngine.die, ScriptedEngine.crash_loading])
async def test_an_engine_that_dies_while_it_loads_is_tried_three_times_and_not_for_ever(stage_of, dies):
    stage = stage_of(loads=False)
    reload = stage.controller.reload("a")
    for number in (1, 2, 3):
        dies(await stage.engine(number=number), "no room for the batch")
    with pytest.raises(ModelLoadFailed, match="no room for the batch"):
        await soon(reload)
    assert len(stage.engines.of("a")) == 3
    assert (stage.model().restarts, stage.controller.counters["a"].deaths) == (3, 3)
    assert stage.controller.counters["a"].loads == {"failed": 3}


async def test_an_engine_that_dies_while_it_is_stopped_is_freed_all_the_same(stage_of):
    stage = stage_of()
    engine = await about_to_die(stage)
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    assert stage.model().load_state is LoadState.FREEING
    engine.wake()
    await soon(unload)
    assert stage.model().load_state is LoadState.UNLOADED


# Processes that die


async def ended_by(stage, *requests, number=1, active=None):
    """The engine of a crashes while it computes ``requests``; the next one, as soon as it serves."""
    (await stage.engine(number=number)).crash("signal 11", active=requests if active is None else active)
    return await stage.engine(number=number + 1)


async def test_answers_go_on_in_the_next_engine_when_the_process_of_theirs_has_died(stage_of):
    stage = stage_of()
    asked = [(await stage.running()) for _ in range(3)]
    (await stage.engine()).say("half")
    following = await ended_by(stage, asked[0][0])
    resumes = await stage.heard(following, Resume, 3)
    assert [(resume.state.sequence, resume.state.texts, resume.alone) for resume in resumes] == [
        (asked[0][0], 1, True),
        (asked[1][0], 1, False),
        (asked[2][0], 1, False),
    ]
    following.say(" and half")
    following.finish()
    assert [await soon(generation.text()) for _, generation in asked] == ["half and half"] * 3
    assert stage.controller.counters["a"].deaths == 1
    assert stage.controller.counters["a"].retried_alone == 1
    assert stage.controller.counters["a"].unloads == {"died": 1}
    assert stage.controller.counters["a"].requests == {"stop": 3}


async def test_a_request_that_returns_is_sent_again_alone_and_may_be_accepted_twice(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    (await stage.engine()).crash("signal 11", active=[request], returns=[request])
    following = await stage.engine(number=2)
    (submit,) = await stage.heard(following, Submit)
    assert (submit.sequence, submit.alone) == (request, True)
    following.say("whole")
    following.finish()
    assert await soon(generation.text()) == "whole"


async def test_a_request_to_embed_is_sent_again_alone(stage_of):
    stage = stage_of()
    request, inquiry = stage.controller.submit_one_shot("a", lambda sequence: Embed(sequence, (Text("Once"),)))
    engine = await stage.engine()
    (embed,) = await stage.heard(engine, Embed)
    engine.crash("signal 11", active=[request], returns=[request])
    assert await stage.heard(await stage.engine(number=2), Embed) == [replace(embed, alone=True)]
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(inquiry.embedded())


async def test_a_state_that_an_engine_died_too_early_to_receive_goes_to_the_next(stage_of):
    stage = stage_of(loads=False)
    _, generation = stage.submit()
    engine = await stage.engine()
    engine.load()
    await soon(generation.accepted())
    engine.say("half")
    assert await soon(anext(generation)) == "half"
    unload = stage.controller.unload("a", UnloadMode.SUSPEND)
    await soon(unload)
    reload = stage.controller.reload("a")
    deaf = await stage.engine(number=2)
    deaf.load()
    deaf.crash("signal 11")
    await soon(reload)
    following = await stage.engine(number=3)
    following.load()
    (resume,) = await stage.heard(following, Resume)
    assert (resume.state.texts, resume.state.size_bytes, deaf._heard) == (1, 0, [])
    following.say(" and half")
    following.finish()
    assert await soon(generation.text()) == " and half"


async def test_nothing_is_granted_to_an_engine_whose_death_is_published_with_its_last_events(stage_of):
    stage = stage_of()
    request, _ = await stage.running()
    engine = await stage.engine()
    with stage.controller.watch.observer() as observer:
        engine.crash("signal 11", active=[request], frees=False)
        change = await soon(anext(aiter(observer)))
    assert (change.load_state, change.reason) == (LoadState.FREEING, "signal 11")
    await turn()
    assert [waiter.request for waiter in stage.model().queue] == [request]
    assert not stage.model().leases
    assert [type(message) for message in engine._heard] == [Submit]
    engine.wake()
    await stage.heard(await stage.engine(number=2), Resume)


async def test_a_request_that_ends_its_engine_twice_is_blamed_and_refused_when_it_comes_again(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    _, other = stage.controller.submit("a", lambda sequence: Submit(sequence, Text("Twice")))
    await soon(other.accepted())
    following = await ended_by(stage, request)
    await stage.heard(following, Resume, 2)
    last = await ended_by(stage, request, number=2)
    with pytest.raises(HarmfulRequest, match="signal 11"):
        await soon(generation.text())
    with pytest.raises(HarmfulRequest):
        await soon(stage.submit()[1].accepted())
    # With another seed it is the same, for another model it is not.
    seeded = stage.controller.submit("a", lambda sequence: Submit(sequence, Text("Once"), Sampling(seed=1)))[1]
    with pytest.raises(HarmfulRequest):
        await soon(seeded.accepted())
    await stage.running("b")
    (resume,) = await stage.heard(last, Resume)
    assert not resume.alone
    last.finish()
    assert await soon(other.text()) == ""
    assert (stage.controller.counters["a"].blamed, stage.controller.counters["a"].deaths) == (1, 2)


async def test_a_suspect_that_has_a_token_is_not_blamed_for_the_next_death(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    following = await ended_by(stage, request)
    following.say("alive")
    assert await soon(anext(generation)) == "alive"
    assert stage.model().suspects == frozenset()
    last = await ended_by(stage, request, number=2)
    (resume,) = await stage.heard(last, Resume)
    assert resume.alone
    last.finish()
    assert await soon(generation.text()) == ""


async def test_the_echo_of_a_prompt_clears_no_suspect(stage_of):
    stage = stage_of()
    request, generation = stage.controller.submit("a", lambda sequence: Submit(sequence, Text("Once"), echoes=True))
    await soon(generation.accepted())
    (await stage.engine()).crash("signal 11", active=[request], returns=[request])
    following = await stage.engine(number=2)
    following.say("Once", ids=())
    assert await soon(anext(generation)) == "Once"
    assert stage.model().suspects == {request}
    following.say(" more")
    assert await soon(anext(generation)) == " more"
    assert stage.model().suspects == frozenset()


async def test_a_client_that_left_when_its_engine_died_ends_as_one_that_left(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    engine = await stage.engine()
    engine.hang()
    engine.crash("signal 11", active=[request])
    # Too late for the engine to receive it.
    stage.controller.abandon(request)
    engine.wake()
    await soon(generation.until(lambda: generation.is_over))
    assert stage.controller.counters["a"].requests == {"cancelled": 1}
    assert len(stage.engines.of("a")) == 1


async def test_a_client_that_left_and_is_blamed_counts_as_one_that_left(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    following = await ended_by(stage, request)
    await stage.heard(following, Resume)
    following.hang()
    following.crash("signal 11", active=[request])
    stage.controller.abandon(request)
    following.wake()
    await soon(generation.until(lambda: generation.is_over))
    assert stage.controller.counters["a"].requests == {"cancelled": 1}
    with pytest.raises(HarmfulRequest):
        await soon(stage.submit()[1].accepted())


async def test_a_close_during_a_death_ends_what_the_engine_had(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    engine = await stage.engine()
    engine.hang()
    engine.crash("signal 11", active=[request])
    close = asyncio.create_task(stage.controller.close(MAX_WAIT_S))
    await turn()
    engine.wake()
    assert await soon(close)
    with pytest.raises(ShuttingDown):
        await soon(generation.text())


async def test_a_process_that_dies_when_it_is_to_stop_is_no_error_to_who_unloads(stage_of):
    stage = stage_of()
    await soon(stage.controller.reload("a"))
    engine = await stage.engine()
    engine.hang()
    engine.crash("signal 11")
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    engine.wake()
    await soon(unload)
    assert (stage.model().load_state, stage.model().failure) == (LoadState.UNLOADED, None)
    assert stage.controller.counters["a"].unloads == {"asked": 1}


async def test_weights_that_are_lost_while_they_are_parked_are_not_held_any_more(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    (await stage.engine()).lose_weights("signal 9")
    await turn()
    assert stage.model().load_state is LoadState.UNLOADED
    await soon(stage.controller.reload("a"))
    assert weights.releases == 0


async def test_weights_that_are_lost_while_their_model_wakes_fail_nothing(stage_of):
    stage = stage_of(loads=False)
    reload = stage.controller.reload("a")
    engine = await stage.engine()
    engine.load()
    await soon(reload)
    await soon(stage.controller.unload("a", UnloadMode.PARK))
    again = stage.controller.reload("a")
    following = await stage.engine(number=2)
    engine.lose_weights("signal 9")
    following.load()
    await soon(again)
    assert stage.model().load_state is LoadState.LOADED


async def test_a_file_that_is_written_over_ends_its_streams_and_no_others_and_nothing_is_kept(stage_of, caplog):
    stage = stage_of()
    _, generation = await stage.running()
    _, other = await stage.running("b")
    engine = await stage.engine()
    engine.say("Hello")
    engine.write_over("m.gguf")
    with pytest.raises(ModelFileChanged, match=r"The file m\.gguf of the model 'a' changed"):
        await soon(generation.text())
    (stop,) = await stage.heard(engine, Stop)
    assert (stop.suspend, stop.keep_bytes, stop.park, stop.discard) == (False, 0, False, True)
    assert "a: the file m.gguf was written over while it was served" in caplog.text
    assert stage.controller.counters["a"].unloads == {"changed": 1}
    (await stage.engine("b")).finish()
    await soon(other.text())
    await stage.running()
    assert len(stage.engines.of("a")) == 2


async def test_parked_weights_whose_file_is_written_over_are_given_up(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    (await stage.engine()).write_over("m.gguf", at_once=True)
    await turn()
    # Done when its memory is free.
    await soon(stage.controller.unload("a", UnloadMode.FORCE))
    assert stage.model().load_state is LoadState.UNLOADED
    assert weights.releases == 1
    assert stage.controller.counters["a"].unloads == {"asked": 1, "changed": 1}


async def test_what_becomes_of_a_death_is_logged(stage_of, caplog):
    stage = stage_of()
    request, _ = await stage.running()
    await stage.running()
    await stage.heard(await ended_by(stage, request), Resume, 2)
    assert "The engine of a died (signal 11): starting it again, 2 requests go on" in caplog.messages
