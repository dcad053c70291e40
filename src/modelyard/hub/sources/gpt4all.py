"""Finds the folders in which GPT4All keeps the models that it has downloaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def gpt4all_folders(home: Path, environment: Mapping[str, str], platform: str = sys.platform) -> list[Path]:
    """Return the folders that are there: of the desktop program, and of its Python package.

    Source: GPT4All, gpt4all-chat/src/mysettings.cpp (modelPath) and gpt4all-bindings/python/gpt4all/gpt4all.py.
    """
    if platform == "darwin":
        data = home / "Library" / "Application Support"
    elif platform == "win32":
        data = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        data = Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share")
    folders = (data / "nomic.ai" / "GPT4All", home / ".cache" / "gpt4all")
    return [folder for folder in folders if folder.is_dir()]
