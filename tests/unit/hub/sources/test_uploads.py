"""How long a file that a client has sent is kept."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelyard.hub.sources.uploads import MAX_UNUSED_S, Uploads

CONTENT = b"weights"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


async def pieces(content: bytes = CONTENT) -> AsyncIterator[bytes]:
    yield content


def files(folder: Path) -> set[Path]:
    return set(folder.iterdir())


async def sent(uploads: Uploads) -> Path:
    return await uploads.receive(DIGEST, pieces(), len(CONTENT))


async def test_a_file_that_no_model_is_made_of_is_deleted_after_a_day(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = await sent(uploads)
    uploads.sweep(time.time() + MAX_UNUSED_S - 60)
    assert path.exists()
    uploads.sweep(time.time() + MAX_UNUSED_S + 60)
    assert files(tmp_path) == set()


async def test_a_file_that_a_model_is_made_of_is_kept_whatever_its_age(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    used = uploads.claim(await sent(uploads))
    uploads.sweep(time.time() + 100 * MAX_UNUSED_S)
    assert used.read_bytes() == CONTENT
    assert uploads.find(DIGEST) == used
    assert uploads.claim(used) == used


async def test_a_client_that_asks_for_its_file_finds_it_for_another_day(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = await sent(uploads)
    os.utime(path, (1, 1))
    assert uploads.find(DIGEST) == path
    uploads.sweep()
    assert path.exists()


async def test_two_models_can_be_made_of_one_file_at_once(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = await sent(uploads)
    assert uploads.claim(path) == uploads.claim(path)


async def test_a_file_that_is_gone_cannot_be_claimed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    path = await sent(uploads)
    path.unlink()
    assert uploads.find(DIGEST) is None
    with pytest.raises(FileNotFoundError):
        uploads.claim(path)


async def test_the_next_upload_deletes_what_is_old_also_where_its_process_died_in_it(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    half, other, foreign = (tmp_path / name for name in ("sha256-0.1234.part", "sha256-0.new", "sha256-1"))
    for path in (half, other, foreign):
        path.write_bytes(b"old")
        os.utime(path, (1, 1))
    path = await sent(uploads)
    assert files(tmp_path) == {foreign, path}


def test_without_a_folder_there_is_nothing_to_delete(tmp_path: Path) -> None:
    Uploads(tmp_path / "none").sweep()
    file = tmp_path / "elsewhere.new"
    file.touch()
    assert Uploads(tmp_path / "none").claim(file) == file
