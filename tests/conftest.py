"""What all tests share: the real weights, and a server with both of them."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx
import llama_gguf
import pytest
import tiny_vision
from demo_weights import prepare
from hypothesis import HealthCheck, settings

from modelyard.config import Config, validate_config
from modelyard.system.openmp import SPIN_VARIABLE
from support.made_once import made_once

if TYPE_CHECKING:
    from support.server import RunningServer

llama_gguf.add_to_path()

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
CONTEXT = 2048


@pytest.fixture(scope="session")
def weights() -> dict[str, Path]:
    """The demo weights: smollm2 (an instruct model, Llama) and gemma3 (a base model, Gemma)."""
    return prepare(ROOT / ".weights")


@pytest.fixture(scope="session")
def drawn_weights(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stand-ins for the demo models at a tenth of their arithmetic, by their names: see ``support.drawn_weights``."""
    from support.drawn_weights import write_drawn

    folder = made_once(tmp_path_factory, "drawn", lambda folder: write_drawn(weights, folder))
    return {name: folder / path.name for name, path in weights.items()}


@pytest.fixture(scope="session", autouse=True)
def trials_are_spared() -> Iterator[None]:
    """Models that tests serve are not tried before: that takes seconds for each of a hundred files.

    Servers in processes of their own try theirs; ``tests/integration/test_trial.py`` and ``test_faults.py`` do.
    """
    from modelyard.yard.runtime import engine_factory
    from modelyard.yard.runtime.trials import Trials

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(engine_factory, "Trials", partial(Trials, Path(folder), lambda _task, _report: None))
        yield


@pytest.fixture(scope="session", autouse=True)
def records_of_deaths() -> Iterator[Path]:
    """The folder of what is remembered of engines that died: not the user's."""
    from modelyard.yard.runtime import engine_hosts

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(engine_hosts, "user_cache", lambda: Path(folder))
        yield Path(folder) / "modelyard" / "isolation"


@pytest.fixture(scope="session", autouse=True)
def servers_of_others_are_not_found() -> Iterator[None]:
    """Servers that tests start announce themselves to the tests alone, and commands find no others."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.setenv("XDG_STATE_HOME", folder)
        for variable in ("MODELYARD_HOST", "MODELYARD_API_KEY", "MODELYARD_API_KEY_FILE"):
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(autouse=True)
def deaths_are_forgotten(records_of_deaths: Path) -> Iterator[None]:
    """A model whose engine one test ends is not isolated in the next, which may look at threads of this process."""
    yield
    shutil.rmtree(records_of_deaths, ignore_errors=True)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, an embedding model: the GGUF file that its safetensors were converted to, once."""
    from support.minilm import converted

    return converted(ROOT / ".weights" / "converted")


@pytest.fixture(scope="session")
def vision_models(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny models that take images, with their projectors, by the kind of projector."""

    def make(common: Path) -> None:
        language_models: dict[bool, Path] = {}
        for kind in tiny_vision.KINDS:
            folder, has_places = common / kind, kind == "qwen2vl"
            folder.mkdir()
            if has_places in language_models:
                # It is the same again, and takes seconds to write.
                shutil.copy(language_models[has_places], folder)
            language_models[has_places], _ = tiny_vision.make(weights["smollm2"], folder, kind)

    common = made_once(tmp_path_factory, "vision", make)
    return {kind: common / kind for kind in tiny_vision.KINDS}


@pytest.fixture(scope="session")
def hearing_models(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny models that hear: ``ears`` does that alone, ``both`` sees, too."""
    from support import tiny_hearing

    names = ("ears", "both")

    def make(common: Path) -> None:
        for name in names:
            tiny_hearing.make(weights["smollm2"], common / name, sees=name == "both")

    common = made_once(tmp_path_factory, "hearing", make)
    return {name: common / name for name in names}


def two_models(
    weights: dict[str, Path], context: int = CONTEXT, memory: dict[str, Any] | None = None, **runtime: Any
) -> Config:
    """Both test models, as a configuration file would name them; greedy, so that a test sees the same answer again."""
    greedy = {"temperature": 0}
    return validate_config(
        {
            "default_model_id": "smollm2",
            "runtime": runtime,
            "memory": memory or {},
            "models": [
                {
                    "model_id": str(weights["smollm2"]),
                    "alias": "smollm2",
                    "aliases": ["org/smol"],
                    "sampling": greedy,
                    "device": {"max_seq_len": context},
                },
                {
                    "model_id": str(weights["gemma3"]),
                    "alias": "google/gemma3",
                    "chat_template": str(ROOT / "examples" / "gemma.jinja"),
                    "sampling": greedy,
                    "device": {"max_seq_len": context},
                },
            ],
        },
        source="test",
        base=ROOT,
    )


@pytest.fixture(scope="session")
def server(weights: dict[str, Path]) -> Iterator[RunningServer]:
    """One server with both models, for tests that leave it as they found it."""
    from support.server import serving

    with serving(two_models(weights, max_seqs=8, prefix_cache_n=8)) as running:
        yield running


@pytest.fixture(scope="session")
def drawn_server(drawn_weights: dict[str, Path]) -> Iterator[RunningServer]:
    """A server with stand-ins for both models: for tests to which the meaning of an answer does not matter."""
    from support.server import serving

    with serving(two_models(drawn_weights, max_seqs=8, prefix_cache_n=8)) as running:
        yield running


def pytest_configure() -> None:
    # Images of containers often set this. Then pytest would rewrite all assertions in each process that collects tests,
    # and each process that a test starts would compile the sources: a second of processor time, hundreds of times.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # The workers, and the servers that they start, compute on the same cores: threads that spin at a barrier keep the
    # others from it. With the server's own count of 1,000, tests of engines took twice as long.
    os.environ.setdefault(SPIN_VARIABLE, "100")
    # llama.cpp divides attention over 512 cells and more among its threads, and adds up in another order for each
    # number of them: greedy answers would differ with how many engines compute at the moment.
    # Source: llama.cpp, ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_flash_attn_ext_f16.
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")
    # Each client, and each call without one, reads all certificate authorities: 50 ms. Tests make thousands of them.
    httpx._transports.default.create_ssl_context = cache(httpx._transports.default.create_ssl_context)
    httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)
    # A shell has SIGINT ignored in what it runs in the background, and so would the programs that the tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    # The modules and their 13,000 tests stay to the end. The garbage collector would visit them again and again while
    # they become more, and with each full pass of a test.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    # llama_cpp opens two files at import and leaves them to the interpreter's end, which warns of them.
    opened = sys.modules.get("llama_cpp._utils")
    if opened is not None:
        opened.outnull_file.close()
        opened.errnull_file.close()
