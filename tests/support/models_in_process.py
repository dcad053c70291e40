"""Models in process on scripted engines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from modelyard import AsyncModel, ChatStream, Model, ModelBuilder, MultiModelBuilder
from modelyard.yard.yard import Yard
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0


def two(tiny: Callable[[], ModelBuilder]) -> MultiModelBuilder:
    """A builder of two models, "a" and "b"."""
    return MultiModelBuilder().add_model_with_alias("a", tiny()).add_model_with_alias("b", tiny())


def model_of(builder: MultiModelBuilder, engines: ScriptedEngines) -> Model:
    """The models of ``builder`` on ``engines``."""
    return Model(builder.config(), lambda config: Yard(config, engines.make_handle))


async def async_model_of(builder: MultiModelBuilder, engines: ScriptedEngines) -> AsyncModel:
    """The models of ``builder`` on ``engines`` and on the running event loop."""
    model = AsyncModel(builder.config(), lambda config: Yard(config, engines.make_handle))
    await model.start()
    return model


def texts(stream: ChatStream) -> list[str]:
    """The texts of the chunks."""
    return [chunk.choices[0].delta.content or "" for chunk in stream]


def interrupt_main() -> None:
    """As Ctrl-C does."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)
