"""Lock files, the bill of materials and the audit of what they name."""

import hashlib
import json
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import audit
import lock
import pip_output
import pytest
import sbom
import setup_venv
from lock_file import Pin, canonical, parse_lock, render
from packaging.requirements import Requirement

import modelyard

ROOT = Path(__file__).resolve().parents[2]

LOCK_FILES = [ROOT / "requirements.lock", *sorted((ROOT / "requirements").glob("*.lock"))]


def pins(*names):
    return [pin for name in names for pin in parse_lock((ROOT / name).read_text())]


def locked(*names):
    return {pin.name: pin.version for pin in pins(*names)}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements():
    extras = project()["optional-dependencies"]
    runtime, folder = "requirements.lock", "requirements/"
    convert = (runtime, f"{folder}convert.lock", f"{folder}torch.lock")
    yield from ((text, (runtime,)) for text in project()["dependencies"])
    yield from ((text, convert) for text in extras["convert"])
    yield from ((text, (*convert, f"{folder}dev.lock")) for text in extras["dev"])
    yield from ((text, (f"{folder}site.lock",)) for text in extras["site"])
    yield from ((text, (f"{folder}demo.lock",)) for text in extras["demo"])


@pytest.mark.parametrize(("text", "files"), list(requirements()))
def test_the_locks_hold_a_version_that_the_project_accepts(text, files):
    requirement = Requirement(text)
    assert requirement.specifier.contains(locked(*files)[canonical(requirement.name)], prereleases=True)


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.name)
def test_every_line_of_a_lock_has_a_version_and_hashes_and_was_written_by_the_script(path):
    found = parse_lock(path.read_text())
    assert found
    assert all(pin.hashes for pin in found)
    head = path.read_text().split("\n")[:2]
    assert head[1] == "# Written by `make lock`."
    assert path.read_text() == "\n".join(head) + "\n" + render(found)


@pytest.mark.parametrize(
    "line",
    ["numpy", "numpy>=1", "numpy==1", "numpy==1 --hash=md5:abc", "-e .", "numpy @ file:///x --hash=sha256:" + "0" * 64],
)
def test_what_is_not_pinned_by_hash_is_no_line_of_a_lock(line):
    with pytest.raises(ValueError, match="no line of a lock file"):
        parse_lock(line)


def test_no_package_has_two_versions():
    versions = {}
    for path in LOCK_FILES:
        for pin in parse_lock(path.read_text()):
            versions.setdefault(pin.name, set()).add(pin.version.removesuffix("+cpu"))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_modelyard_itself_is_in_no_lock():
    assert not [path for path in LOCK_FILES if "modelyard" in locked(path.relative_to(ROOT))]


def needed_by(name, extras=()):
    """Names of what an installed package needs on this machine."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        for extra in ("", *extras):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                yield canonical(requirement.name), tuple(requirement.extras)
                break


def test_the_lock_leaves_nothing_out_that_is_needed_here():
    """Nothing is resolved where it is installed, so what is missing would be found out by an import that fails."""
    known = locked("requirements.lock")
    missing, looked_at = set(), set()
    wanted = [
        (canonical(Requirement(text).name), tuple(Requirement(text).extras)) for text in project()["dependencies"]
    ]
    while wanted:
        package = wanted.pop()
        if package in looked_at:
            continue
        looked_at.add(package)
        if package[0] not in known:
            missing.add(package[0])
        else:
            wanted += needed_by(*package)
    assert missing == set()
    assert len(looked_at) > 30


def wheel(folder, name="tiny"):
    """A package of one file, as pip installs it."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("is_tampered", [False, True])
def test_a_file_with_another_hash_is_not_installed(tmp_path, is_tampered):
    digest = hashlib.sha256(wheel(tmp_path).read_bytes()).hexdigest()
    lock = tmp_path / "some.lock"
    lock.write_text(render([Pin("tiny", "1.0", hashes=("0" * 64 if is_tampered else digest,))]))
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--no-index", "--find-links", str(tmp_path)]
    command += ["--target", str(target), *setup_venv.hashed(lock)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) is not is_tampered, done.stderr
    assert (target / "tiny.py").exists() is not is_tampered
    said = next((text for pattern, text in pip_output.ADVICE if pattern.search(done.stderr)), "")
    assert ("not the one that was locked" in said) is is_tampered


def test_the_bill_of_materials_is_that_of_the_lock():
    bill = sbom.bill_of(pins("requirements.lock"))
    assert json.loads(sbom.BILL.read_text()) == bill
    assert {part["name"]: part["version"] for part in bill["components"]} == locked("requirements.lock")
    assert bill["metadata"]["component"]["version"] == modelyard.__version__
    direct = {canonical(Requirement(text).name) for text in project()["dependencies"]}
    assert {ref.split("/")[1].split("@")[0] for ref in bill["dependencies"][0]["dependsOn"]} == direct
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")


def test_what_only_torch_needs_on_linux_is_apart_from_what_converts():
    linux = "sys_platform == 'linux'"
    found = lock.cuda_of(
        [
            Pin("torch", "2"),
            Pin("cuda", "1", linux, via=("torch",)),
            Pin("cublas", "1", f"platform_machine == 'x86_64' and {linux}", via=("cuda", "torch")),
            Pin("sympy", "1", via=("torch",)),
            Pin("uvloop", "1", linux, via=("uvicorn", "torch")),
        ]
    )
    assert [pin.name for pin in found] == ["cublas", "cuda", "torch"]


def test_a_package_that_others_need_on_one_system_alone_stays_in_a_lock_for_all():
    windows = "sys_platform == 'win32'"
    others = [Pin("click", "8"), Pin("colorama", "1", windows)]
    assert lock.without([Pin("click", "8", windows), Pin("colorama", "1", windows)], others) == []
    assert lock.without([Pin("colorama", "1")], others) == [Pin("colorama", "1")]


def test_an_audit_tells_what_is_known_from_what_could_not_be_looked_up():
    bad = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}
    good = {"name": "b", "version": "1", "vulns": []}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert audit.findings({"dependencies": [bad, good, skipped]}) == audit.Findings({"a 1": ["CVE-1"]}, ["c"])
    statuses = [audit.findings({"dependencies": each}).status for each in ([good], [good, skipped], [bad, skipped])]
    assert statuses == [0, 2, 1]
