"""Waits for what a server does to its models, for as long as the server is alive, and shows the progress meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from modelyard.cli.client.connection import ServerAddress, event_object, events, post, probe
from modelyard.cli.messages import print_error
from modelyard.errors import ModelyardError, ServerRefused, ServerUnreachable

# A load, or the end of running answers, may take hours; a server that does not answer at all is given up.
_LONGEST_S: Final = 7 * 86_400.0
_PROBE_EVERY_S: Final = 10.0
_MAX_MISSED_PROBES: Final = 3
_REFRESH_S: Final = 0.1
_SILENCE_S: Final = 30.0
_EVENTS: Final = "/v1/models/events"

Outcome = dict[str, Any] | ModelyardError


@dataclass(frozen=True, slots=True)
class Step:
    """How far a model is: what is done to it, and the part of that which is done, from 0 to 1; None: not known."""

    step: str
    fraction: float | None


_WAITING: Final = Step("waiting for", None)


def post_for_each(address: ServerAddress, path: str, bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Outcome]:
    """Send one request for each model, all at once, and return what each was answered with.

    On a terminal, standard error shows the progress of the models.

    Args:
        address: the server.
        path: of the endpoint.
        bodies: the bodies of the requests, by the id of the model.

    Raises:
        ServerUnreachable: the server has stopped to answer.
        KeyboardInterrupt: the user does not wait any longer. The server goes on.
    """
    outcomes: dict[str, Outcome] = {}
    news = threading.Event()

    def send(model: str) -> None:
        try:
            outcomes[model] = post(address, path, bodies[model], within_s=_LONGEST_S)
        except ModelyardError as error:
            outcomes[model] = error
        news.set()

    with _followed_progress(address, list(bodies)) as show:
        for model in bodies:
            threading.Thread(target=send, args=(model,), daemon=True).start()
        last_sign = time.monotonic()
        missed = 0
        while len(outcomes) < len(bodies):
            news.wait(_REFRESH_S)
            news.clear()
            show(outcomes)
            if time.monotonic() - last_sign > _PROBE_EVERY_S:
                missed = 0 if probe(address) else missed + 1
                last_sign = time.monotonic()
                if missed >= _MAX_MISSED_PROBES:
                    raise ServerUnreachable(
                        address.url, "it does not answer any more", "See its log: it may have been stopped."
                    )
    return {model: outcomes[model] for model in bodies}


def raise_first(outcomes: Mapping[str, Outcome]) -> None:
    """Raise the first error of ``outcomes``; the others are printed before.

    Raises:
        ModelyardError: there is one.
    """
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, ModelyardError)]
    for error in errors[1:]:
        print_error(str(error))
    if errors:
        raise errors[0]


def error_object(error: ModelyardError) -> dict[str, str]:
    """Return an error for JSON: the server's code and message, where it is the server's."""
    code = error.server_code if isinstance(error, ServerRefused) else error.code
    return {"code": code, "message": str(error)}


@contextmanager
def _followed_progress(address: ServerAddress, models: Sequence[str]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Enter with a function that draws bars for ``models``, but those that are done; it draws none off a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done: None
        return
    from modelyard.cli.load_bars import LoadBars

    steps: dict[str, Step] = {}
    threading.Thread(target=_follow, args=(address, steps), daemon=True).start()
    bars = LoadBars(console)
    try:
        yield lambda done: bars.show({model: steps.get(model, _WAITING) for model in models if model not in done})
    finally:
        bars.close()


def _follow(address: ServerAddress, steps: dict[str, Step]) -> None:
    """Note the progress that the server reports. A key that may not see it gets bars without progress."""
    try:
        with events(address, _EVENTS, silence_s=_SILENCE_S) as stream:
            for event in stream:
                if event.name == "progress":
                    change = event_object(address, _EVENTS, event)
                    steps[change["model_id"]] = Step(change.get("stage") or "loading", change.get("progress") or 0.0)
    except ModelyardError:
        return
