"""What a release changes, and when it is refused: then nothing has changed."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

import pytest
import release

TODAY = date(2026, 12, 1)
HEAD = "# Changelog\n\nWhat changes. Nothing has been released yet; the version in\nthe source is 0.1.0.\n\n"
UNRELEASED = HEAD + "## [Unreleased]\n\n### Added\n\n- One thing.\n"


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A developer")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    (tmp_path / "src/modelyard").mkdir(parents=True)
    (tmp_path / release.VERSION_FILE).write_text('"""The version."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / release.CHANGELOG).write_text(UNRELEASED)
    (tmp_path / "sbom.cdx.json").write_text("old")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "Begin")
    return tmp_path


def made(root: Path, version: str) -> str:
    return release.release(root, version, TODAY, lambda: (root / "sbom.cdx.json").write_text(version) and None)


def test_a_release_sets_the_version_dates_the_changelog_and_tags_the_commit(project: Path) -> None:
    assert made(project, "0.1.0") == "v0.1.0"
    (project / release.CHANGELOG).write_text(
        (project / release.CHANGELOG).read_text().replace("## [Unreleased]\n", "## [Unreleased]\n\n- Another.\n")
    )
    git(project, "commit", "--quiet", "-am", "Go on")
    assert made(project, "0.2.0") == "v0.2.0"
    assert '__version__ = "0.2.0"' in (project / release.VERSION_FILE).read_text()
    assert (project / "sbom.cdx.json").read_text() == "0.2.0"
    assert (project / release.CHANGELOG).read_text() == (
        "# Changelog\n\nWhat changes.\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n- Another.\n\n"
        "## [0.1.0] - 2026-12-01\n\n### Added\n\n- One thing.\n"
    )
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "describe", "--exact-match") == "v0.2.0"
    assert git(project, "log", "-1", "--format=%s") == "Release 0.2.0"


def test_what_a_release_is_refused_for_is_named_and_nothing_changes(project: Path) -> None:
    made(project, "0.1.0")
    (project / release.CHANGELOG).write_text(UNRELEASED + "\n## [0.9.0] - 2026-11-01\n\n- It.\n")
    git(project, "commit", "--quiet", "-am", "Go on")
    before = git(project, "rev-parse", "HEAD")
    for version, problem in {
        "1.0": "no version",
        "v1.0.0": "no version",
        "": "no version",
        "1.0.0rc1": "no version",
        "0.1.0": "a tag v0.1.0 already",
        "0.9.0": r"not newer than 0\.9\.0",
        "0.0.9": r"not newer than 0\.9\.0",
    }.items():
        with pytest.raises(release.ReleaseRefused, match=problem):
            made(project, version)
    (project / "new.txt").write_text("1")
    with pytest.raises(release.ReleaseRefused, match=r"(?s)has changes.*new\.txt"):
        made(project, "1.0.0")
    (project / "new.txt").unlink()
    assert git(project, "rev-parse", "HEAD") == before
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("text", [HEAD, HEAD + "## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n- It.\n"])
def test_a_release_without_a_changelog_is_refused(text: str) -> None:
    with pytest.raises(release.ReleaseRefused, match="nothing under"):
        release.released_changelog(text, "1.0.0", TODAY)


def test_a_version_older_than_that_of_the_source_is_refused() -> None:
    with pytest.raises(release.ReleaseRefused, match=r"1\.9\.0 is older than 1\.10\.0"):
        release.with_version('__version__ = "1.10.0"\n', "1.9.0")


def test_the_changelog_of_this_project_can_be_released() -> None:
    text = (release.ROOT / release.CHANGELOG).read_text("utf-8")
    version = ".".join(str(number) for number in (999, 0, 0))
    assert f"## [{version}] - 2026-12-01\n\n" in release.released_changelog(text, version, TODAY)
