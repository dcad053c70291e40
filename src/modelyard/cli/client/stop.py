"""``modelyard stop``: ends a server of this machine, or unloads models."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from modelyard.cli.client.completion import complete_model
from modelyard.cli.client.connection import ServerAddress
from modelyard.cli.client.find import candidates
from modelyard.cli.client.options import JsonOption, KeyFileOption, ModelsOption, UrlOption, optional_models
from modelyard.cli.client.output import print_json
from modelyard.cli.client.server_state import server_state
from modelyard.cli.client.unload import unload_models
from modelyard.cli.exit_codes import INTERRUPTED
from modelyard.cli.messages import print_note, print_result
from modelyard.errors import AmbiguousServer, ModelyardError, ServerUnreachable, ServerUnusable
from modelyard.system.announcements import Announcement, sole_stop
from modelyard.system.other_process import OtherProcess, other_process
from modelyard.system.quantities import count_text

# A server lets running answers end for 30 s, and its engines for 10 s after that.
_STOP_S: Final = 60.0
_LOOK_S: Final = 3.0
# A signal may arrive while another one is pending, and is then the same one: it is sent until it has an effect.
_REPEAT_S: Final = 0.5


def stop(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Models to unload, in place of the server.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    model: ModelsOption = None,
    now: Annotated[bool, typer.Option("--now", help="End running requests instead of waiting for them.")] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop the server that runs on this machine, after its running requests; or unload models of a server."""
    if named := optional_models(models, model):
        unload_models(named, "force" if now else "drain", url, key_file, as_json=as_json)
        return
    server = _server_to_stop(url, key_file)
    assert server.announcement is not None
    _stop(server, server.announcement, now=now)
    if as_json:
        print_json({"url": server.url, "pid": server.announcement.pid, "stopped": True})
    else:
        print_result(f"The server at {server.url} has stopped.")


def _server_to_stop(url: str | None, key_file: Path | None) -> ServerAddress:
    """Return the server, which is one of the user's own on this machine.

    Raises:
        AmbiguousServer: there are several.
        ServerUnusable: there is none, or it is not one that this user can stop from here.
    """
    servers = candidates(url, os.environ, key_file)
    if len(servers) > 1:
        listed = "".join(f"\n  modelyard stop --url {server.url}" for server in servers)
        raise AmbiguousServer(f"{len(servers)} servers run on this machine. Say which one is to stop:{listed}")
    (server,) = servers
    if server.announcement is None:
        server_state(server)
        raise ServerUnusable(
            f"The server at {server.url} is not one that you started on this machine: it runs on another one, in a "
            "container, for another user, or within a program. Stop it there, with Ctrl-C, with kill and its process "
            "id, or with systemctl stop or docker stop."
        )
    return server


def _stop(server: ServerAddress, announcement: Announcement, *, now: bool) -> None:
    """Send SIGTERM to a server and wait for its end.

    Raises:
        ServerUnusable: it does not end in time, or belongs to another user.
    """
    with other_process(announcement.pid, announcement.start) as process:
        if process is None:
            return
        try:
            # A second SIGTERM would end the running requests, which the first one waits for.
            with sole_stop(announcement, os.environ) as is_sole:
                is_stopping = _announce_wait(server, has_served=announcement.is_serving, now=now, is_sole=is_sole)
                if now:
                    has_ended = _end_at_once(process)
                else:
                    if not is_stopping:
                        process.terminate()
                    has_ended = process.ends_within(_STOP_S)
        except PermissionError:
            raise ServerUnusable(
                f"The server at {server.url} (process {announcement.pid}) belongs to another user, who can stop it."
            ) from None
        except KeyboardInterrupt:
            print_note("The server goes on stopping.")
            raise typer.Exit(INTERRUPTED) from None
    if not has_ended:
        raise ServerUnusable(
            f"The server at {server.url} has not ended within {_STOP_S:.0f} s. End it with: kill -9 {announcement.pid}"
        )


def _announce_wait(server: ServerAddress, *, has_served: bool, now: bool, is_sole: bool) -> bool:
    """Say what the stop waits for; return whether the server is stopping already.

    Args:
        server: the server.
        has_served: whether it has served.
        now: whether its running requests are to end.
        is_sole: whether no other command stops it.
    """
    if not is_sole:
        print_note(f"The server at {server.url} is stopping already.")
        return True
    try:
        state = server_state(server, within_s=_LOOK_S)
    except ServerUnreachable as error:
        if error.is_refused and has_served:
            print_note(f"The server at {server.url} is stopping already.")
        return error.is_refused and has_served
    except ModelyardError:
        # It does not tell what it does, which is no reason not to stop it.
        return False
    running = sum(model["running"] + model["waiting"] for model in state["models"])
    if running and not now:
        print_note(
            f"The server at {server.url} waits for {count_text(running, 'request')}, at most 30 s. To end them at "
            "once: modelyard stop --now"
        )
    return False


def _end_at_once(process: OtherProcess) -> bool:
    """Send SIGTERM again and again, as the second one ends running requests; return whether the process has ended."""
    deadline = time.monotonic() + _STOP_S
    while time.monotonic() < deadline:
        if not process.terminate() or process.ends_within(_REPEAT_S):
            return True
    return False
