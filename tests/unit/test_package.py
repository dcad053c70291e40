"""The wheel and the source archive: what is in them, and that what is installed from them starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import build_package
import pytest
from build_ui import STATIC
from package_contents import source_problems, wheel_problems

import modelyard

PAGE = "modelyard/api/ui/static/"
CODE = ["modelyard/__main__.py", "modelyard/py.typed", "modelyard/config/models.schema.json"]
PAGE_FILES = [
    PAGE + name for name in ("index.html", "sw.js", "manifest.webmanifest", "licences.json", "assets/index-3nIF.js")
]
INFO = [
    f"modelyard-1.0.dist-info/{name}"
    for name in ("METADATA", "entry_points.txt", "licenses/LICENSE", "sboms/sbom.cdx.json")
]
MAN = "modelyard-1.0.data/data/share/man/man1/modelyard.1"
WHEEL = [*CODE, *PAGE_FILES, *INFO, MAN]
ROOT_FILES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "sbom.cdx.json",
    "docs/man/modelyard.1",
    "PKG-INFO",
)
SOURCE = ["modelyard-1.0/" + name for name in (*ROOT_FILES, *(f"src/{name}" for name in (*CODE, *PAGE_FILES)))]


def test_packages_with_the_code_the_page_and_their_metadata_are_right():
    assert wheel_problems(WHEEL) == []
    assert source_problems(SOURCE) == []


@pytest.mark.parametrize("name", [*CODE, *PAGE_FILES, *INFO, MAN])
def test_a_wheel_that_lacks_a_file_is_found_out(name):
    (problem,) = wheel_problems([each for each in WHEEL if each != name])
    shown = name.removeprefix(PAGE).removeprefix("modelyard-1.0.dist-info/").rpartition("man1/")[2]
    assert ("its program" if shown.startswith("assets/") else shown) in problem


@pytest.mark.parametrize("name", SOURCE)
def test_a_source_archive_that_lacks_a_file_is_found_out(name):
    assert len(source_problems([each for each in SOURCE if each != name])) == 1


@pytest.mark.parametrize(
    "name", ["tests/unit/test_x.py", ".weights/a.json", "modelyard/m.gguf", "modelyard/__pycache__/x.pyc", "web/.env"]
)
def test_tests_weights_and_left_overs_are_found_out(name):
    assert name in wheel_problems([*WHEEL, name])[0]
    assert name in source_problems([*SOURCE, f"modelyard-1.0/{name}"])[0]


def test_a_source_archive_has_one_folder_at_its_top():
    assert source_problems([*SOURCE, "elsewhere/x.py"]) == [
        "It has several folders at its top: elsewhere, modelyard-1.0."
    ]


def test_what_would_lead_to_another_installation_is_left_out_of_the_environment():
    environment = {"PATH": "/bin", "PYTHONPATH": "/x", "HF_HOME": "/y", "MODELYARD_API_KEY": "k", "VIRTUAL_ENV": "/z"}
    assert build_package.clean_environment(environment) == {"PATH": "/bin"}


def test_a_step_that_fails_is_reported_with_its_output(tmp_path):
    failing = [sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"]
    with pytest.raises(build_package.PackageFailed, match=r"(?s)what went wrong.*ended with 3"):
        build_package.run(failing, tmp_path, 30)


@pytest.mark.slow
def test_the_wheel_is_built_from_the_source_archive_and_its_command_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(build_package, "DIST", tmp_path / "dist")
    (tmp_path / "source").mkdir()
    archive, wheel = build_package.build(Path(sys.executable), tmp_path / "source")
    with tarfile.open(archive) as packed:
        assert _beside_the_page(source_problems(packed.getnames())) == []
    with zipfile.ZipFile(wheel) as zipped:
        assert _beside_the_page(wheel_problems(zipped.namelist())) == []
    prefix = tmp_path / "prefix"
    options = ["--isolated", "--no-index", "--no-deps", "--ignore-installed", "--no-compile", "--prefix", str(prefix)]
    build_package.install(Path(sys.executable), [*options, str(wheel)])
    (packages,) = prefix.glob("lib/python*/site-packages")
    environment = {**build_package.clean_environment(os.environ), "PYTHONPATH": str(packages), "HOME": str(tmp_path)}

    def printed(*command: str) -> str:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    assert printed(str(prefix / "bin" / "modelyard"), "--version") == f"modelyard {modelyard.__version__}\n"
    assert (prefix / "share" / "man" / "man1" / "modelyard-serve.1").exists()
    assert str(packages) in printed(sys.executable, "-c", "import modelyard; print(modelyard.__file__)")


def _beside_the_page(problems: list[str]) -> list[str]:
    """Leave out that the page is missing, where it could not be built on this machine."""
    return [each for each in problems if "The page is not whole" not in each or (STATIC / "index.html").exists()]
