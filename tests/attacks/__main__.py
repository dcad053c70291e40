"""Attack a server under load, and see what its other users notice.

    python -m attacks [bodies|heads|crowds|media|grammars …]

Prints a line for each attack, and ends with 1 where the server did what it should not: an answer that is none, a stream
that broke off or paused, ``/health`` later than ``MAX_HEALTH_S``, or memory beyond ``MAX_GROWTH_BYTES``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import tiny_vision
from demo_weights import prepare

from attacks.bodies import BODIES, CHATS, send_body, send_many
from attacks.crowds import CROWD, UNFINISHED, answered, closed_in_time, crowd, drip
from attacks.grammars import LARK, SCHEMAS, TOOLS
from attacks.heads import HEADS, MIB, send_head
from attacks.media import CLIENTS, EDGE, IMAGES, send_images
from attacks.others import Others, others
from attacks.sockets import connected, post
from faults.server import Served, served

MODELS: Final = ("smollm2", "gemma3")
ROOT: Final = Path(__file__).resolve().parents[2]
MAX_HEALTH_S: Final = 0.1
MAX_PAUSE_S: Final = 2.0
MAX_GROWTH_BYTES: Final = 2 << 30
MAX_HEAD_BYTES: Final = 8 * MIB
"""What a server, and the sockets between, may take of a head that never ends."""
ANSWER_S: Final = 60.0
ATTACKER_NICENESS: Final = 5
SETTLE_S: Final = 2.0
"""For the others to have measured the server as it is."""

Attack = Callable[[Served], Awaitable[tuple[str, str]]]
"""Attacks a server: what came of it, and what is wrong with that, "" for nothing."""


@dataclass
class Outcome:
    """What an attack did to the others.

    Attributes:
        came: what the attacker got.
        health_s: the slowest answer of ``/health`` meanwhile.
        pause_s: the longest pause of a stream.
        grown: bytes of memory beyond those before the attack.
        problems: what is wrong.
    """

    name: str
    came: str
    took_s: float
    health_s: float
    pause_s: float
    grown: int
    problems: list[str] = field(default_factory=list)


def bodies() -> Iterator[tuple[str, Attack]]:
    """Each body on a path of each dialect in turn, some of them by many clients at once, and on a path of ours."""
    for number, (name, make) in enumerate(BODIES.items()):
        yield f"body: {name}", _body(CHATS[number % len(CHATS)], make)
    yield "body: one long text, to a route that takes a name", _body("/v1/models/unload", BODIES["one long text"])
    for name in ("one long text", "45,000 parts in few messages", "a text of escapes"):
        yield f"body: {name}, twenty times at once", _bodies(BODIES[name], 20)


def _body(path: str, make: Callable[[], bytes]) -> Attack:
    async def attack(server: Served) -> tuple[str, str]:
        status = await send_body(server.url, path, make())
        return str(status), "" if status == 200 or 400 <= status < 500 else "no answer that says what is wrong"

    return attack


def _bodies(make: Callable[[], bytes], times: int) -> Attack:
    async def attack(server: Served) -> tuple[str, str]:
        statuses = await send_many(server.url, CHATS[0], make(), times)
        wrong = [status for status in statuses if status == 500 or status == 0]
        return str(sorted(statuses)), "no answers" if wrong else ""

    return attack


def heads() -> Iterator[tuple[str, Attack]]:
    """What never ends, before a key is asked for."""
    for name, make in HEADS.items():
        yield f"head: {name}", _head(make, is_body=name == "a body behind the answer")


def _head(make: Callable[[], Iterator[bytes]], *, is_body: bool) -> Attack:
    async def attack(server: Served) -> tuple[str, str]:
        taken, status = await send_head(server.url, make())
        # A body that goes on behind an answer is read for a while; nothing of it is kept.
        too_much = taken > MAX_HEAD_BYTES and not is_body
        return f"{taken / MIB:.1f} MiB taken, {status}", "too much was taken" if too_much else ""

    return attack


def crowds() -> Iterator[tuple[str, Attack]]:
    """Many connections that ask for nothing, beside an honest client."""
    for name, said in UNFINISHED.items():
        yield f"crowd: {CROWD} times {name}", _crowd(said)
    yield "crowd: a body that drips", _drip


def _crowd(said: bytes) -> Attack:
    async def attack(server: Served) -> tuple[str, str]:
        async with crowd(server.url, said) as connections:
            status = await answered(server.url)
            closed = await closed_in_time(connections)
        came = f"an honest client had {status}; {closed} of {len(connections)} were closed"
        return came, "" if status == 200 and closed == len(connections) else "they stay"

    return attack


async def _drip(server: Served) -> tuple[str, str]:
    async with connected(server.url) as connection:
        await connection.send(post("/v1/chat/completions", "Content-Length: 100000"))
        seconds = await drip(connection, 90)
    return f"open for {seconds} s", "" if seconds < 90 else "it drips for ever"


def media() -> Iterator[tuple[str, Attack]]:
    """Images of which a few fill the memory of a machine."""
    yield f"media: {CLIENTS} times {IMAGES} images of {EDGE} x {EDGE}", _images


async def _images(server: Served) -> tuple[str, str]:
    statuses = await send_images(server.url, "seer")
    # 400: so many images do not fit the context of a model.
    return str(sorted(statuses)), "" if set(statuses) <= {200, 400, 503} else "no clear answer"


def grammars() -> Iterator[tuple[str, Attack]]:
    """Schemas and grammars: refused at once, or served to the end."""
    for name, make in {**SCHEMAS, **TOOLS}.items():
        yield (
            f"schema: {name}",
            _grammar(
                lambda make=make: {  # type: ignore[misc]
                    "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": make()}}
                }
            ),
        )
    for name, text in LARK.items():
        yield f"grammar: {name}", _grammar(lambda text=text: {"grammar": {"type": "lark", "value": text()}})  # type: ignore[misc]


def _grammar(make: Callable[[], dict[str, Any]]) -> Attack:
    async def attack(server: Served) -> tuple[str, str]:
        body = {"model": "smollm2", "max_tokens": 48, "messages": [{"role": "user", "content": "Give me one."}]}
        async with httpx.AsyncClient(timeout=ANSWER_S) as client:
            answer = await client.post(f"{server.url}/v1/chat/completions", json=body | make())
        said = answer.json()
        came = said["choices"][0]["finish_reason"] if answer.status_code == 200 else said["error"]["message"]
        return f"{answer.status_code} {came[:120]!r}", "" if answer.status_code in (200, 400) else "no clear error"

    return attack


KINDS: Final[dict[str, Callable[[], Iterator[tuple[str, Attack]]]]] = {
    "bodies": bodies,
    "heads": heads,
    "crowds": crowds,
    "media": media,
    "grammars": grammars,
}


def play(name: str, attack: Attack, server: Served, users: Others) -> Outcome:
    """Attack once, while others use the server."""
    before, began = users.noticed(), time.monotonic()
    try:
        came, wrong = asyncio.run(attack(server))
    except (OSError, httpx.HTTPError, TimeoutError) as failure:
        came, wrong = repr(failure), "no answer"
    took_s, noticed = time.monotonic() - began, users.noticed()
    outcome = Outcome(name, came, took_s, noticed.health_s, noticed.pause_s, max(0, noticed.bytes - before.bytes))
    outcome.problems = [
        *filter(None, [wrong]),
        *noticed.problems,
        *([f"/health took {outcome.health_s:.2f} s"] if outcome.health_s > MAX_HEALTH_S else []),
        *([f"a stream paused for {outcome.pause_s:.1f} s"] if outcome.pause_s > MAX_PAUSE_S else []),
        *([f"memory grew by {outcome.grown >> 20} MiB"] if outcome.grown > MAX_GROWTH_BYTES else []),
        *([] if server.is_alive else [f"the server ended with {server.process.returncode}"]),
    ]
    return outcome


def main() -> int:
    """Attack, and print what came of it; 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all where none is named")
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.kinds) - set(KINDS)):
        parser.error(f"There is no kind {', '.join(unknown)}. There are: {', '.join(KINDS)}.")
    outcomes: list[Outcome] = []
    weights = prepare(ROOT / ".weights")
    device = {"max_seq_len": 2048}
    models: list[dict[str, Any]] = [
        {"model_id": str(weights[name]), "alias": name, "device": device} for name in MODELS
    ]
    with TemporaryDirectory() as folder, ExitStack() as stack:
        eyes = Path(folder) / "seer"
        tiny_vision.make(weights["smollm2"], eyes)
        models.append({"model_id": str(eyes), "alias": "seer", "load": "on-demand", "device": device})
        server = stack.enter_context(served(Path(folder), models, max_seqs=8))
        users = stack.enter_context(others(server.url, server.process.pid, MODELS))
        time.sleep(SETTLE_S)
        # An attacker would be on another machine. Its processes share the cores of the server here, and go last.
        os.nice(ATTACKER_NICENESS)
        for kind in arguments.kinds or KINDS:
            for name, attack in KINDS[kind]():
                if arguments.only not in name:
                    continue
                outcome = play(name, attack, server, users)
                outcomes.append(outcome)
                print(
                    f"{'WRONG' if outcome.problems else 'right'} {name}: {outcome.came} in {outcome.took_s:.1f} s; "
                    f"/health {outcome.health_s * 1000:.0f} ms, pause {outcome.pause_s:.2f} s, "
                    f"memory +{outcome.grown >> 20} MiB",
                    flush=True,
                )
                for problem in outcome.problems:
                    print(f"      {problem}", flush=True)
    wrong = sum(bool(outcome.problems) for outcome in outcomes)
    if outcomes:
        health_s, pause_s = max(o.health_s for o in outcomes), max(o.pause_s for o in outcomes)
        print(
            f"{len(outcomes)} attacks, {wrong} wrong; /health within {health_s * 1000:.0f} ms, "
            f"streams paused for {pause_s:.2f} s, memory +{max(o.grown for o in outcomes) >> 20} MiB at the most."
        )
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
