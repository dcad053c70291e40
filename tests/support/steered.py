"""A server over HTTP whose models say what a test has them say, while it is visited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.agent.tools import ToolSource
from modelyard.api.server.log_ring import LogRing
from modelyard.config import validate_config
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Submit
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngine, ScriptedEngines, profile_of
from support.scripted_server import HERMES
from support.server import RunningServer, serving


@dataclass(frozen=True)
class Steered:
    """A running server and its engines.

    Attributes:
        server: the server.
        engines: of its models.
    """

    server: RunningServer
    engines: ScriptedEngines

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.server.url

    def engine(self, model: str = "m") -> ScriptedEngine:
        """The engine of a model that is loaded, or that is being loaded."""
        self.engines.started(model)
        return self.engines.of(model)[-1]

    def turns(self, model: str = "m", number: int = 1) -> list[tuple[str, Any]]:
        """Role and content of each message of the ``number``-th request to a model. Blocks until there is one."""
        submit = self.engine(model).heard(Submit, number)[number - 1]
        assert isinstance(submit, Submit)
        assert isinstance(submit.prompt, Chat)
        return [(message["role"], message["content"]) for message in submit.prompt.messages]

    def answer(self, text: str, *, model: str = "m", number: int = 1) -> None:
        """Answer the ``number``-th request to a model, the only one that runs. Blocks until there is one."""
        engine = self.engine(model)
        engine.heard(Submit, number)
        engine.say(text)
        engine.finish()


@contextmanager
def steered(
    folder: Path,
    models: Sequence[str] = ("m",),
    *,
    loads: bool = True,
    tools: Sequence[ToolSource] = (),
    profile: Callable[[str], ModelProfile] = profile_of,
    model: dict[str, Any] | None = None,
    **tables: Any,
) -> Iterator[Steered]:
    """Serve models for the length of the context.

    Args:
        folder: an empty folder for their file.
        models: their names.
        loads: whether loads succeed by themselves.
        tools: which the server runs.
        profile: what an engine says of its model, by its name.
        model: further keys of each ``[[models]]``.
        tables: further tables of the configuration.
    """
    write(folder / "tiny.gguf", tiny_model())
    named = [{"model_id": "tiny.gguf", "alias": name, **(model or {})} for name in models]
    config = validate_config({**tables, "models": named}, source="test", base=folder)
    engines = ScriptedEngines(loads=loads, output_format=HERMES, profile=profile)
    with serving(config, engines.make_handle, tools=tools, log_ring=LogRing()) as server:
        yield Steered(server, engines)
    assert engines.end()
