"""A pytest plugin that has the tests of llama.cpp's server run against this one.

It replaces ``ServerProcess.start`` and ``stop`` of their ``utils.py``: a server of the same settings runs on a thread
of the same process, and serves later tests with equal settings, too. The plugin writes the outcome of each test into
the file that the environment variable OUTCOMES names.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from conformance.llama_cpp_server.models import TestModels
from modelyard.config import validate_config
from modelyard.yard.runtime import engine_factory, engine_hosts
from modelyard.yard.runtime.trials import Trials
from support.server import RunningServer, serving

# Names of models in their requests: llama.cpp's server with one model answers to any.
ANY_MODEL: Final = (
    "test",
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-instruct",
    "gpt-4.1",
    "davinci-002",
    "codellama70b",
    "text-embedding-3-small",
)

# Servers that are kept for further tests. Each holds its weights, which are mapped and shared, and a KV cache.
MAX_KEPT: Final = 2


class Servers:
    """The servers that run, by their settings."""

    def __init__(self, models: TestModels) -> None:
        self._models = models
        self._running: dict[str, tuple[RunningServer, ExitStack]] = {}

    def start(self, process: Any) -> None:
        """Have a server of the settings of ``process`` run, and tell ``process`` where."""
        settings = self.settings_of(process)
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in self._running:
            while len(self._running) >= MAX_KEPT:
                _, context = self._running.pop(next(iter(self._running)))
                context.close()
            context = ExitStack()
            config = validate_config(settings, source="test", base=Path.cwd())
            self._running[key] = (context.enter_context(serving(config)), context)
        running, _ = self._running[key]
        process.server_port = int(running.url.rpartition(":")[2])
        process.ready = True

    def close(self) -> None:
        """Stop all servers."""
        for _, context in self._running.values():
            context.close()

    def settings_of(self, process: Any) -> dict[str, Any]:
        """Return the configuration that means what the settings of ``process`` mean to llama.cpp's server."""
        slots = process.n_slots or 4
        context = process.n_ctx or 2048
        source = self._models.path_of(process)
        sampling = {"seed": process.seed}
        if process.temperature is not None:
            sampling["temperature"] = process.temperature
        names = (process.model_alias or "model").split(",")
        model: dict[str, Any] = {
            "model_id": str(source),
            "alias": names[0],
            "aliases": [*names[1:], *(name for name in ANY_MODEL if name not in names)],
            "device": {"max_seq_len": context if process.kv_unified else context // slots, "max_batch_size": slots},
            "sampling": sampling,
        }
        if process.chat_template_file:
            model["chat_template"] = str(Path(process.chat_template_file).resolve())
        elif process.chat_template is not None:
            model["chat_template"] = str(self._models.template(process.chat_template))
        if process.reasoning_format == "none":
            model["reasoning_format"] = "none"
        if process.sleep_idle_seconds is not None:
            model["idle_unload_seconds"] = process.sleep_idle_seconds
        server: dict[str, Any] = {"api_keys": [process.api_key] if process.api_key else []}
        if process.media_path:
            server["image_folders"] = [str(Path(process.media_path).resolve())]
        models = [model]
        if process.model_draft or process.spec_type:
            models.append({"model_id": str(self._models.draft), "alias": "draft", "load": "on-demand"})
            model["draft"] = "draft"
        return {"server": server, "default_model_id": model["alias"], "models": models}


# Fields that limit an answer, by the paths whose bodies have them. A server's own limit stands for a missing one.
LIMITS: Final = {
    **dict.fromkeys(("/completion", "/infill"), ("n_predict", "max_tokens")),
    "/v1/completions": ("max_tokens", "n_predict"),
    **dict.fromkeys(
        ("/chat/completions", "/v1/chat/completions"), ("max_tokens", "n_predict", "max_completion_tokens")
    ),
    **dict.fromkeys(("/responses", "/v1/responses"), ("max_output_tokens",)),
}


# llama.cpp's native endpoints -> their paths here, where OpenAI's are also served without /v1.
PATHS: Final = {"/completions": "/completion", "/embeddings": "/embedding"}


def limited(request: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of ``ServerProcess`` that sends a request, with the limit of the server in its body."""

    def send(process: Any, method: str, path: str, data: Any = None, *args: Any, **options: Any) -> Any:
        path = PATHS.get(path, path)
        limits = LIMITS.get(path, ())
        is_open = isinstance(data, dict) and limits and not any(name in data for name in limits)
        if is_open and (process.n_predict or 0) > 0:
            data = {**data, limits[0]: process.n_predict}
        if isinstance(data, dict) and "messages" in data and process.reasoning is not None:
            # llama.cpp gives templates the variable by its option --reasoning.
            data = {"chat_template_kwargs": {"enable_thinking": process.reasoning != "off"}, **data}
        return request(process, method, path, data, *args, **options)

    return send


def _without_downloads(url: str, out: str | None = None) -> None:
    raise RuntimeError(f"{url} cannot be fetched: the tests run without a network")


class Plugin:
    """The hooks of pytest."""

    def __init__(self, tests: Path, outcomes: Path) -> None:
        self._outcomes_path = outcomes
        self._outcomes: dict[str, list[str]] = {}
        sys.path.insert(0, str(tests))
        # Their utils fetches models with it.
        wget = types.ModuleType("wget")
        wget.download = _without_downloads  # type: ignore[attr-defined]
        sys.modules["wget"] = wget
        utils = __import__("utils")
        self._models_folder = TemporaryDirectory(prefix="llama-cpp-tests-")
        self._servers = Servers(TestModels(Path(self._models_folder.name)))
        utils.ServerProcess.start = lambda process, timeout_seconds=0: self._servers.start(process)
        utils.ServerProcess.stop = lambda process: None
        for name in ("make_request", "make_stream_request"):
            setattr(utils.ServerProcess, name, limited(getattr(utils.ServerProcess, name)))
        utils.ServerPreset.load_all = staticmethod(lambda: None)
        utils.download_file = lambda url, output_file_path=None: url
        # A refusal is printed with the request's headers; answers of megabytes are not worth their time.
        utils.print = lambda *args, **kwargs: None

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of a test: of its call, or of a setup that did not pass."""
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            self._outcomes[report.nodeid] = [report.outcome, _reason(report)]

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Write the outcomes, and stop the servers."""
        self._outcomes_path.write_text(json.dumps(self._outcomes, indent=1))
        self._servers.close()
        self._models_folder.cleanup()

    @pytest.fixture(scope="session", autouse=True)
    def records_and_trials(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """Neither try models before they are served, nor keep records of the machine's user."""
        folder = tmp_path_factory.mktemp("cache")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_factory, "Trials", partial(Trials, folder, lambda _task, _report: None))
            patch.setattr(engine_hosts, "user_cache", lambda: folder)
            yield


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message)[:600]
    return "" if report.longrepr is None else str(report.longrepr)[-600:]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Register the plugin for the tests in the working directory, before their conftest imports ``utils``."""
    early_config.pluginmanager.register(Plugin(Path.cwd(), Path(os.environ["OUTCOMES"])), "modelyard")
