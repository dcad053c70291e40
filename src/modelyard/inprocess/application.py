"""Builds the HTTP application of a model, for a mount in another application."""

from __future__ import annotations

from starlette.types import ASGIApp

from modelyard.api.app import create_app as create_http_app
from modelyard.config import read_keys
from modelyard.errors import InvalidRequest
from modelyard.inprocess.asgi import MountedApp, OtherLoopApp, UsableApp
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.model import Model
from modelyard.inprocess.requests import shown


def create_app(model: Model | AsyncModel) -> ASGIApp:
    """Return the whole HTTP API on ``model`` as an ASGI application, to be served or mounted in another application.

        app = FastAPI()
        app.mount("/llm", modelyard.create_app(model))

    The application of a Model runs on any event loop; the application of an AsyncModel runs on the model's own event
    loop. If ``[server]`` or ``MODELYARD_API_KEYS`` have API keys, a request must carry one of them. The Host header is
    checked only if ``allowed_hosts`` is configured. The caller closes the model; later requests get a 503.

    Raises:
        ConfigError: the source of a key cannot be read.
        Closed, ForkedProcess: as the model's methods.
    """
    if isinstance(model, AsyncModel):
        return MountedApp(UsableApp(_mountable(model), lambda: model.yard))
    if not isinstance(model, Model):
        raise InvalidRequest(f"An application is made of a Model or an AsyncModel; this is {shown(model)}.")
    return MountedApp(OtherLoopApp(model.thread.call_sync(_mountable), model.thread))


def _mountable(model: AsyncModel) -> ASGIApp:
    return create_http_app(model.yard, read_keys(model.yard.config), is_mounted=True, agent=model.agent)
