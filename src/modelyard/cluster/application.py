"""The application on Ray Serve: a directory of the nodes, a node for each machine, and a front that speaks HTTP.

Serve starts the actors, places and replaces them, and adds and removes nodes. The front listens itself. Requests go
from it to nodes over connections of our own (``wire.py``): so the front knows at once when a node is lost, can
have its streams go on elsewhere, and no queue but those of the yards holds a request.

This is the only module that imports Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from starlette.types import Receive, Scope, Send

from modelyard.cluster.front_http import FrontHttp
from modelyard.cluster.front_models import ClusterModels, front_config, node_config, startup_models
from modelyard.cluster.front_nodes import FrontNodes
from modelyard.cluster.node_book import NodeBook
from modelyard.cluster.node_report import NodeReport
from modelyard.cluster.node_server import NodeServer
from modelyard.cluster.scaling_policy import NodePolicy
from modelyard.config import Config, validate_config
from modelyard.config.cluster import Cluster
from modelyard.config.environment import expand
from modelyard.config.tables import kind_of
from modelyard.errors import ConfigError, ModelyardError
from modelyard.inprocess.async_model import AsyncModel
from modelyard.version import __version__
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

APPLICATION: Final = "modelyard"

MANY: Final = 100_000
"""Requests that Serve passes on at the same time: more than connections can carry, so that it queues none."""

ON_HEAD: Final[dict[str, Any]] = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
"""Where the front and the directory run: on Ray's head, without which there is no cluster either."""

REGISTER_S: Final = 1.0
"""Seconds between two registrations of a node, and two looks of a front at the nodes."""

CLOSE_S: Final = 15.0
"""Seconds that a node may take to free its models, after its requests have gone."""


def config_of(settings: Mapping[str, Any]) -> Config:
    """Return the configuration of what ``settings_of`` returned, which Serve passes as JSON.

    Raises:
        ConfigError: it is faulty, or an environment variable that it names is not set on this machine.
    """
    expansion = expand(settings["tables"], os.environ)
    if expansion.problems:
        raise ConfigError(settings["source"], list(expansion.problems))
    expansion.read_scalars(kind_of)
    return validate_config(expansion.values, source=settings["source"], base=Path(settings["base"]))


class Directory:
    """Keeps the nodes of the application, and plans where models are."""

    def __init__(self) -> None:
        self._book = NodeBook(Cluster())

    def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Plan for a configuration, as ``Node.reconfigure``."""
        config = config_of(settings)
        self._book.reconfigure(config.cluster, startup_models(config))

    def register(
        self, node: str, address: tuple[str, int], labels: Mapping[str, str], fields: Sequence[Any]
    ) -> list[str]:
        """Note a node; return the models that it is to load."""
        return self._book.register(node, address, labels, NodeReport.of_fields(fields), time.monotonic())

    def nodes(self) -> tuple[dict[str, tuple[str, int]], Mapping[str, tuple[str, ...]]]:
        """Return the addresses of the nodes, and where models are wanted."""
        return self._book.addresses(time.monotonic()), self._book.homes


class Node:
    """One machine: a yard with its models. Serve puts at most one on each of Ray's nodes.

    It is ready before any model is loaded, and its health does not depend on loads.
    """

    async def __init__(self, secret: str, directory: Any) -> None:  # type: ignore[misc]
        self._secret, self._directory = secret, directory
        self._drain_s = 0.0
        self._model: AsyncModel | None = None
        self._server: NodeServer | None = None
        self._registering: asyncio.Task[None] | None = None
        self._loads: set[asyncio.Task[None]] = set()

    async def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Serve a configuration. Serve calls it before the first request, and when it is deployed again."""
        config = config_of(settings)
        self._drain_s = config.cluster.drain_seconds
        if self._model is not None:
            await self._model.yard.reconfigure(node_config(config))
            return
        self._model = AsyncModel(node_config(config), self.make_yard)
        await self._model.start()
        context = ray.get_runtime_context()
        # Its node's id in Ray, short enough for logs.
        self._server = NodeServer(self._model.yard, context.get_node_id()[:12], self._secret)
        host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        address = host, await self._server.start(host)
        labels = {name: str(value) for name, value in context.get_node_labels().items()}
        self._registering = asyncio.create_task(self._register(self._server, address, labels), name="register")

    def make_yard(self, config: Config) -> Yard:
        """Return the yard of the node."""
        return Yard(config, auto_host="process")

    def check_health(self) -> None:
        """Return at once: an event loop that answers is healthy, whatever its models do."""

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what decides about how many nodes there are."""
        return {} if self._server is None else self._server.load().values()

    def wake(self) -> None:
        """Return at once. Serve starts a node for the call where there is none."""

    async def __del__(self) -> None:
        """Let requests end, have the others go on elsewhere, and free the models. Serve calls it before the end."""
        if self._registering is not None:
            self._registering.cancel()
        if self._server is not None:
            await self._server.drain(self._drain_s)
            await self._server.close()
        if self._model is not None:
            await self._model.aclose(CLOSE_S)

    async def _register(self, server: NodeServer, address: tuple[str, int], labels: Mapping[str, str]) -> None:
        while True:
            try:
                orders = await self._directory.register.remote(server.name, address, labels, server.report().fields())
            except Exception as failed:  # noqa: BLE001 (Ray raises the errors of the other actor, of any class)
                logger.warning("The directory does not answer: %s", failed)
            else:
                for model in orders:
                    task = asyncio.create_task(self._load(model), name=f"load {model}")
                    self._loads.add(task)
                    task.add_done_callback(self._loads.discard)
            await asyncio.sleep(REGISTER_S)

    async def _load(self, model: str) -> None:
        assert self._model is not None
        try:
            await self._model.yard.reload(model)
        except ModelyardError as failed:
            logger.warning("%s is wanted here, and was not loaded: %s", model, failed)


class Front:
    """The HTTP surface of the cluster, on the yards of all nodes."""

    async def __init__(self, secret: str, directory: Any, node: Any) -> None:  # type: ignore[misc]
        self._nodes, self._directory, self._node = FrontNodes(secret, on_waiting=self._on_waiting), directory, node
        # The call that has Serve start a node.
        self._waking: Any = None
        self._remotes = ClusterModels(self._nodes)
        self._model: AsyncModel | None = None
        self._http: FrontHttp | None = None
        self._following: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> Any:
        """Return the application, which exists once Serve has passed the configuration."""
        return _FrontApp(lambda: None if self._http is None else self._http.app)

    async def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Serve a configuration, as ``Node.reconfigure``."""
        config = front_config(config_of(settings))
        self._nodes.start_s = config.cluster.start_seconds
        if self._model is not None:
            await self._model.yard.reconfigure(config)
            self._remotes.nodes.forget_adapters()
            return
        self._model = AsyncModel(config, partial(Yard, remotes=self._remotes))
        await self._model.start()
        self._following = asyncio.create_task(self._follow(), name="follow the nodes")
        listen = settings.get("listen")
        self._http = FrontHttp(self._model, None if listen is None else tuple(listen))
        await self._http.start()

    def check_health(self) -> None:
        """Return at once, as ``Node.check_health``.

        Raises:
            RuntimeError: nothing listens any more; Serve replaces the front then.
        """
        if self._http is not None and self._http.has_ended:
            raise RuntimeError("the HTTP server of the front has ended")

    async def __del__(self) -> None:
        """Let requests end, and end what still runs. Serve calls it before the end."""
        if self._http is not None:
            await self._http.close()
        if self._following is not None:
            self._following.cancel()
        if self._model is not None:
            await self._model.aclose(CLOSE_S)
        await self._nodes.close()

    def _on_waiting(self, is_waiting: bool) -> None:
        """Have Serve start a node where requests wait for one."""
        if is_waiting:
            self._waking = self._node.wake.remote()
        elif self._waking is not None:
            # Without requests none is needed. A call that has been answered is not cancelled by this.
            self._waking.cancel()
            self._waking = None

    async def _follow(self) -> None:
        while True:
            try:
                addresses, homes = await self._directory.nodes.remote()
            except Exception as failed:  # noqa: BLE001 (Ray raises the errors of the other actor, of any class)
                logger.warning("The directory does not answer: %s", failed)
            else:
                self._nodes.follow(addresses)
                self._nodes.table.set_homes(homes)
            await asyncio.sleep(REGISTER_S)


class _FrontApp:
    """The application of a front, which Serve asks for before the front has its configuration.

    Args:
        app: returns the application; not called before the first request.
    """

    def __init__(self, app: Callable[[], FastAPI | None]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. The front starts and ends with its actor, not with ASGI's lifespan."""
        if scope["type"] != "lifespan":
            app = self._app()
            assert app is not None, "Serve passes the configuration before the first request"
            await app(scope, receive, send)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


def application(settings: Mapping[str, Any], secret: str | None = None, node_kind: type[Node] = Node) -> Any:
    """Return the application, to be run by Serve.

    Args:
        settings: see ``settings_of``. With "listen", a host and a port, the front listens there; without, Serve's
            proxies pass requests on to it.
        secret: what the front shows to nodes; None: a new one.
        node_kind: class of the nodes.
    """
    return _application(config_of(settings).cluster, settings, secret or secrets.token_hex(32), node_kind)


def declared(args: Mapping[str, Any]) -> Any:
    """Return the application of a RayService, whose deployments get their settings from its manifest.

    Args:
        args: with "cluster", the table of that name without what concerns single models.
    """
    return _application(Cluster(**args["cluster"]), {}, _secret_of_running(), Node)


def _application(cluster: Cluster, settings: Mapping[str, Any], secret: str, node_kind: type[Node]) -> Any:
    directory = _deployment(Directory, name="directory", ray_actor_options=ON_HEAD, user_config=dict(settings)).bind()
    shutdown_s = cluster.drain_seconds + 2 * CLOSE_S
    scaling: dict[str, Any] = {"num_replicas": cluster.min_nodes}
    if cluster.max_nodes > cluster.min_nodes:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=cluster.min_nodes,
                max_replicas=cluster.max_nodes,
                downscale_delay_s=cluster.idle_seconds,
                policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                    policy_function=f"{NodePolicy.__module__}:{NodePolicy.__name__}",
                    policy_kwargs={
                        "target_queue": cluster.target_queue,
                        "target_first_token": cluster.target_first_token,
                    },
                ),
            )
        }
    node = _deployment(
        node_kind,
        name="node",
        max_replicas_per_node=1,
        ray_actor_options={"num_cpus": 1},
        user_config=dict(settings),
        graceful_shutdown_timeout_s=shutdown_s,
        graceful_shutdown_wait_loop_s=0.1,
        **scaling,
    ).bind(secret, directory)
    front = _deployment(
        serve.ingress()(Front),
        name="front",
        num_replicas=1,
        ray_actor_options=ON_HEAD,
        max_ongoing_requests=MANY,
        max_queued_requests=-1,
        user_config=dict(settings),
        graceful_shutdown_timeout_s=shutdown_s,
    )
    return front.bind(secret, directory, node)


def _deployment(kind: type, **options: Any) -> Any:
    made: Any = serve.deployment(kind, **options)
    # Serve replaces all actors of another version, and draws a new version for each deploy unless it is given one. With
    # the same version it passes a changed configuration to the actors that run.
    return made.options(version=__version__, _internal=True)


def deploy(settings: Mapping[str, Any], address: str | None, host: str, port: int, node_kind: type[Node] = Node) -> str:
    """Run the application on a Ray cluster, and return its base URL. An application that runs takes the new settings.

    Args:
        settings: see ``settings_of``.
        address: of the Ray cluster; None: a new one on this machine, which ends with this process.
        host, port: where the front listens for HTTP, on the head.
        node_kind: class of the nodes.
    """
    # A new one is for this machine alone, whose other addresses may not lead back to it.
    own: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if address is None else {}
    ray.init(address=address or "local", log_to_driver=False, configure_logging=False, ignore_reinit_error=True, **own)
    serve.start(proxy_location="Disabled")
    listening = {**settings, "listen": [host, port]}
    # Without a route: Serve's proxies, if others have started them, pass nothing on.
    serve.run(application(listening, _secret_of_running(), node_kind), name=APPLICATION, route_prefix=None)
    return f"http://{host}:{port}"


def wait_for_interrupt() -> None:
    """Return once the process is interrupted, after the application has ended."""
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    shut_down()


def shut_down() -> None:
    """End the application, and the cluster where it is this process's own."""
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


def _secret_of_running() -> str:
    """Return the secret of the application. It stays when that is deployed again: else all actors would be replaced."""
    with contextlib.suppress(ValueError):
        return str(ray.get(ray.get_actor("modelyard-secret", namespace=APPLICATION).value.remote()))
    # On the head: with any other node it would be lost, while the front goes on with what it was given.
    holder: Any = ray.remote(**ON_HEAD)(_Secret)
    kept = holder.options(name="modelyard-secret", namespace=APPLICATION, lifetime="detached").remote()
    return str(ray.get(kept.value.remote()))


class _Secret:
    """An actor that keeps the secret of an application."""

    def __init__(self) -> None:
        self._value = secrets.token_hex(32)

    def value(self) -> str:
        """Return the secret."""
        return self._value


def settings_of(tables: Mapping[str, Any], source: str, base: Path) -> dict[str, Any]:
    """Return the tables of a configuration file with where they came from, as JSON.

    Args:
        tables: of the file. References to environment variables stay, because Serve shows them: each node has its own.
        source: the name of the file, for errors.
        base: where relative paths start. Nodes find the files there.
    """
    return {"tables": dict(tables), "source": source, "base": str(base)}
