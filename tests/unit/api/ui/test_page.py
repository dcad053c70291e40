"""The page at /ui: its files, their headers, and where it is not."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from modelyard.api.ui.files import read_files
from modelyard.config import AccessKey
from modelyard.config.key_rules import digest_of
from support.scripted_app import scripted_app

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SCRIPT = b"export const answer = 42;\n"
KEYS = [AccessKey("alice", digest_of("secret"), None, frozenset({"inference", "read"}))]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as the build makes it."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Modelyard</title>")
    (folder / "manifest.webmanifest").write_text("{}")
    (folder / "sw.js").write_text("self.skipWaiting();")
    (folder / "icon.svg").write_text("<svg/>")
    (folder / ".inputs").write_text("a digest")
    (folder / "assets/index-B1x.js").write_bytes(SCRIPT)
    (folder / "assets/index-B1x.js.gz").write_bytes(gzip.compress(SCRIPT))
    return folder


@pytest_asyncio.fixture
async def client(tmp_path: Path, built: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that needs keys, without one."""
    async with scripted_app(tmp_path, lambda _: "", keys=KEYS, ui_folder=built) as client:
        client.headers["accept-encoding"] = "identity"
        yield client


async def test_a_browser_is_sent_to_the_page_and_gets_it_without_a_key(client: httpx.AsyncClient) -> None:
    root = await client.get("/", headers=BROWSER)
    # Relative, so that a path prefix of a proxy stays.
    assert (root.status_code, root.headers["location"], root.headers["vary"]) == (307, "ui/", "accept")
    folder = await client.get("/ui", headers=BROWSER)
    assert (folder.status_code, folder.headers["location"]) == (307, "ui/")
    page = await client.get("/ui/")
    assert (page.status_code, page.text) == (200, "<!doctype html><title>Modelyard</title>")
    # The data of the page does need one.
    assert (await client.get("/v1/server")).status_code == 401
    assert (await client.get("/ui/../v1/server")).status_code in (401, 404)


async def test_programs_get_from_the_root_what_they_got(client: httpx.AsyncClient) -> None:
    assert (await client.get("/", headers={"accept": "*/*"})).text == "OK"


async def test_a_page_runs_no_code_of_others_and_is_in_no_frame(client: httpx.AsyncClient) -> None:
    for path in ("/ui/", "/ui/assets/index-B1x.js", "/ui/sw.js"):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("path", "media_type", "caching"),
    [
        ("", "text/html; charset=utf-8", "no-cache"),
        ("index.html", "text/html; charset=utf-8", "no-cache"),
        ("manifest.webmanifest", "application/manifest+json", "no-cache"),
        ("sw.js", "text/javascript; charset=utf-8", "no-cache"),
        ("icon.svg", "image/svg+xml", "no-cache"),
        ("assets/index-B1x.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
    ],
)
async def test_files_have_their_types_and_hashed_ones_are_kept(
    client: httpx.AsyncClient, path: str, media_type: str, caching: str
) -> None:
    answer = await client.get(f"/ui/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["cache-control"] == caching
    again = await client.get(f"/ui/{path}", headers={"if-none-match": f'"x", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert (await client.head(f"/ui/{path}")).headers["content-length"] == str(len(answer.content))


async def test_a_compressed_file_is_sent_to_those_who_take_it(client: httpx.AsyncClient) -> None:
    plain = await client.get("/ui/assets/index-B1x.js", headers={"accept-encoding": "gzip;q=0, br"})
    packed = await client.get("/ui/assets/index-B1x.js", headers={"accept-encoding": "br, GZIP;q=0.5"})
    assert (plain.content, packed.content) == (SCRIPT, SCRIPT)
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert plain.headers["etag"] != packed.headers["etag"]


@pytest.mark.parametrize("path", ["nothing.js", ".inputs", "assets", "assets/", "assets/index-B1x.js.gz", "%2e%2e/x"])
async def test_what_is_no_file_of_the_page_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"/ui/{path}")).status_code == 404


async def test_it_can_be_switched_off(tmp_path: Path, built: Path) -> None:
    async with scripted_app(tmp_path, lambda _: "", ui_folder=built, ui=False) as client:
        unknown = await client.get("/nothing")
        for path in ("/ui", "/ui/", "/ui/assets/index-B1x.js"):
            assert (await client.get(path)).status_code == unknown.status_code == 404
        assert (await client.get("/", headers=BROWSER)).status_code == 200


async def test_switched_off_its_paths_are_as_closed_as_others(tmp_path: Path, built: Path) -> None:
    async with scripted_app(tmp_path, lambda _: "", keys=KEYS, ui_folder=built, ui=False) as client:
        assert (await client.get("/ui/")).status_code == (await client.get("/nothing")).status_code == 401


async def test_where_it_was_not_built_it_says_how(tmp_path: Path) -> None:
    async with scripted_app(tmp_path, lambda _: "", ui_folder=tmp_path / "none") as client:
        for path in ("/ui", "/ui/"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "make ui" in answer.text
        assert (await client.get("/ui/sw.js")).status_code == 404
        # The list of models stays where it is.
        assert "<td>m</td>" in (await client.get("/", headers=BROWSER)).text


def test_a_folder_without_the_page_has_no_files(built: Path) -> None:
    assert ".inputs" not in read_files(built)
    (built / "index.html").unlink()
    assert read_files(built) == {}
