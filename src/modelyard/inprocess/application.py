"""The HTTP application of a model, to be mounted in another application."""

from __future__ import annotations

from starlette.types import ASGIApp

from modelyard.api.app import create_app as create_http_app
from modelyard.config import read_keys
from modelyard.inprocess.asgi import MountedApp, OtherLoopApp, UsableApp
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.model import Model


def create_app(model: Model | AsyncModel) -> ASGIApp:
    """The whole HTTP API on ``model``, as an ASGI application: to be served, or mounted in another application.

        app = FastAPI()
        app.mount("/llm", modelyard.create_app(model))

    The application of a Model runs on any event loop, that of an AsyncModel on the model's own. A request must carry
    one of the keys of the configuration's ``[server]`` or of ``MODELYARD_API_KEYS``, if there are any. Names by which
    clients address the server are checked only where ``allowed_hosts`` is configured. The caller closes the model;
    requests get a 503 afterwards.

    Raises:
        ConfigError: a key is not where the configuration says.
        Closed, ForkedProcess: as the model's methods.
    """
    if isinstance(model, AsyncModel):
        return MountedApp(UsableApp(_mountable(model), lambda: model.yard))
    return MountedApp(OtherLoopApp(model.thread.call_sync(_mountable), model.thread))


def _mountable(model: AsyncModel) -> ASGIApp:
    return create_http_app(model.yard, read_keys(model.yard.config), is_mounted=True)
