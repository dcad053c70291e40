"""What the endpoints of one application share: each handler is a function of its module and finds it by its request."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from modelyard.agent.agent import Agent
from modelyard.api.media.load import MediaLoader
from modelyard.yard.yard import Yard


@dataclass(frozen=True, slots=True)
class Services:
    """The state of one application, kept as ``app.state.services``.

    Routers are built once, when their module is imported, and serve every application of the process.

    Attributes:
        yard: the models.
        media: loads the images and sound that requests refer to.
        agent: the tools of the server, and what the answers that use them share.
    """

    yard: Yard
    media: MediaLoader
    agent: Agent

    @staticmethod
    def of(http: Request) -> Services:
        """The services of the application that ``http`` was sent to."""
        services: Services = http.app.state.services
        return services
