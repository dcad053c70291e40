"""Contexts that grow and shrink, from engines to the residency and back."""

import asyncio

from modelyard.errors import InsufficientMemory
from modelyard.protocol.prompts import Text, Tokens
from modelyard.protocol.requests import Embed, RefuseGrowth, Resize, Submit
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId
from modelyard.yard.memory.footprint import ContextSize, Footprint
from modelyard.yard.requests.token_estimate import FIRST_ANSWER_TOKENS, cells_needed
from modelyard.yard.residency.events import BudgetChanged
from modelyard.yard.stats.status import context_allocated, plan
from support.controller_stage import turn
from support.scripted_engines import MODEL_BYTES

SIZES = tuple(ContextSize(cells, cells * 100) for cells in (1024, 2048, 4096, 8192))


async def elastic(model):
    """A model that takes 100 bytes for each of its up to 8,192 cells."""
    return (Footprint(model, MODEL_BYTES, 819_200, sizes=SIZES, cells=8192),)


class Made:
    """Notes the contexts that engines begin with."""

    def __init__(self):
        self.cells = []

    def on(self, stage_of, budget):
        stage = stage_of(size=elastic, budget=budget)
        make = stage.factory.make

        async def noting(model, publish, placement, cells):
            self.cells.append(cells)
            return await make(model, publish, placement, cells)

        stage.factory.make = noting
        return stage


async def until(is_reached):
    for _ in range(10_000):
        if is_reached():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it is never reached")


async def test_a_context_begins_small_grows_when_asked_and_shrinks_for_another_model(stage_of):
    made = Made()
    # For both models, but with one small context.
    stage = made.on(stage_of, budget=2 * MODEL_BYTES + 900_000)
    await stage.running("a")
    assert made.cells == [1024]
    engine = await stage.engine("a")

    engine.want_context(500, 5000)
    (grown,) = await stage.heard(engine, Resize)
    # As large as it would use: that is free.
    assert grown.sizes == (8192,)
    engine.resize(8192)
    await until(lambda: stage.model("a").resizing is None)
    assert context_allocated(stage.model("a")) == 8192

    stage.submit("b")
    shrunk = (await stage.heard(engine, Resize, 2))[1]
    assert shrunk.sizes[0] == 1024
    planned = plan(stage.controller.state, "b")
    assert planned.outcome == "waits"
    engine.resize(2048)
    await stage.engine("b")
    assert made.cells == [1024, 1024]


async def test_an_engine_hears_that_its_context_will_not_grow(stage_of):
    stage = Made().on(stage_of, budget=MODEL_BYTES + 900_000)
    await stage.running("a")
    engine = await stage.engine("a")
    stage.controller.feed(BudgetChanged(MODEL_BYTES + 600_000))
    engine.want_context(8000, 8000)
    (refused,) = await stage.heard(engine, RefuseGrowth)
    assert isinstance(refused.error, InsufficientMemory)
    await turn()
    assert stage.model("a").growth is None


def test_a_request_needs_cells_for_its_prompt_and_the_beginning_of_its_answer():
    sequence = SequenceId(1)
    assert cells_needed(Submit(sequence, Tokens((1, 2, 3)), max_tokens=10)) == 13
    assert cells_needed(Submit(sequence, Tokens((1, 2, 3)))) == 3 + FIRST_ANSWER_TOKENS
    assert cells_needed(Submit(sequence, Text("a" * 299), max_tokens=9000)) == 100 + FIRST_ANSWER_TOKENS
    assert cells_needed(Embed(sequence, (Text("a"),))) == 0
    submit = Submit(sequence, Text("a"), max_tokens=5)
    state = SuspendedSequence("", submit, (1, 2), (3, 4, 5), None, 0)
    assert cells_needed(submit, state) == 10
