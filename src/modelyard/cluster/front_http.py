"""HTTP of a front: on a socket of its own where it has an address, else through the proxies of Ray Serve.

Through a proxy each part of an answer is a message between two actors, which costs 2 ms a token for one stream, and
14 ms for 64. On its own socket a front also has the bounds of connections, the certificate and the checked names of one
machine's server.
"""

from __future__ import annotations

from modelyard.api.app import close_app, create_app
from modelyard.config import read_keys
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.http_server.server import HttpServer
from modelyard.inprocess.http_server.tls import certificate_of
from modelyard.inprocess.listen import listen


class FrontHttp:
    """The application of a front, and the server of it.

    Args:
        model: the yard of the front, and its tools.
        address: host and port to listen on; None: Serve's proxies pass requests on.

    Attributes:
        app: the ASGI application.
    """

    def __init__(self, model: AsyncModel, address: tuple[str, int] | None) -> None:
        self._config, self._address = model.yard.config, address
        self.app = create_app(
            model.yard,
            read_keys(self._config),
            host=None if address is None else address[0],
            is_mounted=address is None,
            agent=model.agent,
            mcp_statuses=lambda: model.mcp_servers,
        )
        self._server: HttpServer | None = None

    async def start(self) -> None:
        """Listen on the address, if there is one.

        Raises:
            PortUnavailable: the address is in use, or does not belong to this machine.
        """
        if self._address is None:
            return
        config = self._config
        self._server = HttpServer(
            self.app,
            listen(*self._address),
            config.server,
            models=len(config.models),
            tls=certificate_of(config.server),
            drain_s=config.cluster.drain_seconds,
        )
        await self._server.start()

    @property
    def has_ended(self) -> bool:
        """Whether the server listens no more."""
        return self._server is not None and self._server.serving.done()

    async def close(self) -> None:
        """Stop listening, and return when all requests are over, at the latest after ``drain_seconds``."""
        if self._server is not None:
            self._server.ask_to_stop()
            await self._server.serving
        await close_app(self.app)
