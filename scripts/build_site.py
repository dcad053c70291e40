"""Build the documentation as a web site in build/site: ``make site``.

Pages link to each other, and to examples and results, as they lie in the repository, so that the links also work there.
The site is built from a copy in the same places. mkdocs checks every link; a broken one ends the build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "build" / "site-source"

# What pages show or link to. An example is copied as it is, to be downloaded.
COPIED = ("*.md", "LICENSE", "docs/*", "examples/*", "bench/results/latest.*")


def gather() -> None:
    """Copy the pages, and what they link to, into a fresh folder."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for pattern in COPIED:
        for path in ROOT.glob(pattern):
            if path.is_file():
                target = SOURCE / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    # GitHub shows a folder's files; the site lists them.
    names = sorted(path.name for path in (SOURCE / "examples").iterdir())
    listing = "".join(f"- [{name}]({name})\n" for name in names)
    (SOURCE / "examples" / "README.md").write_text(f"# Examples\n\n{listing}", "utf-8")
    for page in SOURCE.rglob("*.md"):
        text = page.read_text("utf-8")
        page.write_text(text.replace("examples/)", "examples/README.md)").replace("examples)", "examples/README.md)"))


if __name__ == "__main__":
    gather()
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
    ]
    # Material for MkDocs advertises its successor with every build.
    sys.exit(subprocess.run(command, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False).returncode)
