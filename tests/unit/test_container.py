"""The Dockerfile and the compose files: no builder runs here, so what they name is compared with what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from build_package import ROOT
from lock_file import parse_lock

from modelyard.config.server import Server
from modelyard.system.llama_builds import GGML_NAMES

DOCKERFILE = (ROOT / "Dockerfile").read_text()
BACKENDS = ("cpu", "cuda", "vulkan")


def composed(name: str) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())["services"]["modelyard"]
    return service


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_has_a_stage_that_builds_and_one_that_runs(backend: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert {f"build-{backend}", f"run-{backend}"} <= set(stages)


def test_an_image_is_compiled_for_other_processors_than_that_which_builds_it() -> None:
    arguments = re.findall(r'^ENV CMAKE_ARGS="(.*)"$', DOCKERFILE, re.MULTILINE)
    assert len(arguments) == len(BACKENDS)
    assert all("-DGGML_NATIVE=OFF" in each for each in arguments)
    named = {name for each in arguments for name in re.findall(r"-DGGML_(CUDA|VULKAN)=ON", each)}
    assert {GGML_NAMES[name.title() if name == "VULKAN" else name] for name in named} == {"cuda", "vulkan"}


def test_what_is_copied_into_the_image_is_there_and_holds_what_the_wheel_is_built_from() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    taken = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert rules[1] == "*"
    assert [name for name in taken if not (ROOT / name).exists()] == []
    assert {"src", "scripts", "web", "docs/man", "requirements", "requirements.lock", "pyproject.toml"} <= set(taken)


def test_what_is_removed_from_the_image_is_what_builds() -> None:
    (line,) = re.findall(r"pip uninstall --yes (.*) \\$", DOCKERFILE, re.MULTILINE)
    builders = {
        pin.name
        for name in ("build.lock", "node.lock")
        for pin in parse_lock((ROOT / "requirements" / name).read_text())
    }
    needed = {pin.name for pin in parse_lock((ROOT / "requirements.lock").read_text())}
    assert set(line.split()) <= builders - needed


def test_the_image_runs_as_a_user_of_its_own_and_asks_the_port_that_a_server_has() -> None:
    port = Server.model_fields["port"].default
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert f"http://127.0.0.1:{port}/health" in DOCKERFILE
    assert composed("compose.yaml")["ports"] == [f"127.0.0.1:{port}:{port}"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compose_file_builds_the_image_that_it_is_named_for(backend: str) -> None:
    service = composed("compose.yaml" if backend == "cpu" else f"compose.{backend}.yaml")
    assert service["build"]["args"] == {"BACKEND": backend}
    assert service["image"] == f"modelyard:{backend}"
    assert f"modelyard:{backend}" in (ROOT / "docs" / "installing.md").read_text()


def test_a_composed_server_gets_longer_to_stop_than_it_takes_and_may_write_into_its_volume_alone() -> None:
    service = composed("compose.yaml")
    assert int(service["stop_grace_period"].removesuffix("s")) > 30
    assert service["read_only"]
    assert service["volumes"] == ["data:/data"]
    assert Path("/data").as_posix() in re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
