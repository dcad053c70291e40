"""llama.cpp's converter: extracted completely or not at all, and read without being run."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub.sources import llama_converter, llama_converter_archive
from modelyard.hub.sources.listing import Progress
from modelyard.hub.sources.llama_converter import known_architectures, missing_parts
from modelyard.hub.sources.llama_converter_archive import install_converter

TABLES = b"""
import nothing_that_exists
TEXT_MODEL_MAP: dict[str, str] = {"LlamaForCausalLM": "llama"}
MMPROJ_MODEL_MAP: dict[str, str] = {"LlavaForConditionalGeneration": "llava"}
"""
INSIDE = "engine-1/vendor/llama.cpp"
FILES = {
    f"{INSIDE}/LICENSE": b"MIT",
    f"{INSIDE}/conversion/__init__.py": TABLES,
    f"{INSIDE}/gguf-py/gguf/__init__.py": b"",
    f"{INSIDE}/models/templates/a.jinja": b"{{ a }}",
    f"{INSIDE}/tools/server/tests/utils.py": b"",
    f"{INSIDE}/tools/server/server.cpp": b"",
    f"{INSIDE}/src/llama.cpp": b"int main() {}",
    "engine-1/LICENSE": b"another",
    f"{INSIDE}/conversion/../../../../../escaped.py": b"",
}


def go_on(_: Progress) -> bool:
    return True


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for the converter of an engine with an invented version."""
    folder = tmp_path / "environment" / "share" / "llama.cpp-1.0"
    for module in (llama_converter, llama_converter_archive):
        monkeypatch.setattr(module, "converter_folder", lambda: folder)
    monkeypatch.setattr(llama_converter_archive, "engine_version", lambda: "1.0")
    return folder


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_archive(tmp_path / "engine-1.tar.gz", FILES)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(llama_converter_archive, "ARCHIVES", {"1.0": digest})
    return path


def test_what_a_conversion_needs_is_taken_and_nothing_else(folder: Path, archive: Path, tmp_path: Path) -> None:
    assert install_converter(go_on, archive=archive) == folder
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        *("LICENSE", "conversion/__init__.py", "gguf-py/gguf/__init__.py", "models/templates/a.jinja"),
        "tools/server/tests/utils.py",
    }
    assert (folder / "LICENSE").read_bytes() == b"MIT"
    assert not list(tmp_path.rglob("escaped.py"))


def test_its_tables_are_read_without_running_it(folder: Path, archive: Path) -> None:
    assert known_architectures() is None
    install_converter(go_on, archive=archive)
    known = known_architectures()
    assert known is not None
    assert known.text == {"LlamaForCausalLM"}
    assert known.projectors == {"LlavaForConditionalGeneration"}


def test_an_archive_with_another_hash_is_refused_and_nothing_is_left(folder: Path, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"!")
    with pytest.raises(UnusableModel, match=r"its SHA-256 is .*, and must be .*Download it again"):
        install_converter(go_on, archive=archive)
    assert not folder.exists()
    assert {path.suffix for path in folder.parent.iterdir()} <= {".lock"}


def test_an_installation_that_is_given_up_leaves_no_converter(folder: Path, archive: Path) -> None:
    calls = iter([True, False])
    with pytest.raises(UnusableModel, match="given up"):
        install_converter(lambda _: next(calls), archive=archive)
    assert not folder.exists()
    install_converter(go_on, archive=archive)
    assert (folder / "LICENSE").is_file()


def test_what_is_there_stays_unless_it_is_to_be_replaced(folder: Path, archive: Path) -> None:
    install_converter(go_on, archive=archive)
    (folder / "conversion" / "__init__.py").write_text("damaged = True")
    install_converter(go_on, archive=archive)
    with pytest.raises(UnusableModel, match="install-converter --force"):
        known_architectures()
    install_converter(go_on, archive=archive, force=True)
    assert (folder / "conversion" / "__init__.py").read_bytes() == TABLES


def test_an_engine_whose_archive_is_not_known_is_refused_by_version(
    folder: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_converter_archive, "engine_version", lambda: "9.9")
    with pytest.raises(UnusableModel, match=r"llama-cpp-python 9\.9 has no known converter.*pip install"):
        install_converter(go_on, archive=archive)


def test_without_the_converter_a_conversion_is_refused_with_the_command(folder: Path) -> None:
    assert missing_parts() == ("llama.cpp's converter",)
    with pytest.raises(UnusableModel, match="modelyard install-converter"):
        llama_converter.check_converter()


def test_the_installed_engine_has_a_known_archive() -> None:
    assert llama_converter.engine_version() in llama_converter_archive.ARCHIVES
