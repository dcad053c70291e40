"""Pictures, sound, texts and PDF files, which are chosen, pasted or dropped."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Audio, Image
from support.chat_page import ask, ended
from support.chromium import IN_BROWSER, Visiting
from support.images import encoded, noise
from support.scripted_engines import profile_of
from support.sounds import RATE, audio_file, chirp
from support.steered import Steered, steered

if TYPE_CHECKING:
    from playwright.async_api import JSHandle, Locator, Page

pytestmark = [pytest.mark.browser, *IN_BROWSER]

# What the browser passes on when files are dragged or copied: name, type and contents of each.
TRANSFER = """(files) => {
    const transfer = new DataTransfer();
    for (const [name, type, data] of files) {
        const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type }));
    }
    return transfer;
}"""
PASTE = """(element, clipboardData) =>
    element.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))"""
# Whether the browser does what it does without the page.
DROP = """(element, dataTransfer) =>
    element.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }))"""

PICTURE = noise(1)


def all_senses(name: str) -> ModelProfile:
    """A model that takes pictures and sound."""
    return replace(profile_of(name), can_see=True, can_hear=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Steered]:
    with steered(tmp_path, profile=all_senses) as running:
        yield running


async def transfer(page: Page, *files: tuple[str, str, bytes]) -> JSHandle:
    """Files as they are dragged or copied: name, type and contents of each."""
    return await page.evaluate_handle(TRANSFER, [(*named, base64.b64encode(data).decode()) for *named, data in files])


def media(server: Steered, number: int = 1) -> list[Any]:
    """The parts of the ``number``-th question that are no text."""
    ((_, content),) = server.turns(number=number)
    return [part for part in content if not isinstance(part, str)]


def attached(page: Page) -> Locator:
    """The files of the question that is being written."""
    return page.get_by_role("form", name="Your question").get_by_role("list", name="Files").get_by_role("listitem")


async def test_a_pasted_picture_is_seen_by_the_model(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        field = page.get_by_role("textbox", name="Ask something")
        copied = await transfer(page, ("image.png", "image/png", encoded(PICTURE)))
        await field.evaluate(PASTE, copied)
        await expect(attached(page).get_by_role("img", name="image.png")).to_be_visible()
        await ask(page, "What is it?")
        (seen,) = media(server)
        assert isinstance(seen, Image)
        assert (seen.width, seen.height, seen.pixels) == (PICTURE.width, PICTURE.height, PICTURE.pixels)
        server.answer("Noise.")
        await ended(page)
        await expect(attached(page)).to_have_count(0)
        # The picture stays with its question, also after a reload.
        await page.reload()
        picture = page.locator(".question").get_by_role("img", name="image.png")
        await expect(picture).to_be_visible()
        assert await picture.evaluate("(element) => element.naturalWidth") == PICTURE.width


async def test_files_are_dropped_anywhere_in_the_chat(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        dropped = await transfer(
            page,
            ("a.jpg", "image/jpeg", encoded(PICTURE, "JPEG")),
            ("b.wav", "audio/wav", audio_file(chirp(0.2))),
            ("notes.txt", "text/plain", b"The key is under the mat."),
            ("report.pdf", "application/pdf", pdf_file("The lighthouse is 31 metres high.")),
        )
        blank = page.get_by_text("Ask something.", exact=True)
        await blank.dispatch_event("dragover", {"dataTransfer": dropped})
        await expect(page.locator(".composer.dropping")).to_be_visible()
        await blank.dispatch_event("drop", {"dataTransfer": dropped})
        await expect(page.locator(".composer.dropping")).to_have_count(0)
        await expect(attached(page)).to_have_count(4)
        await attached(page).nth(2).get_by_role("button", name="Remove: notes.txt").click()
        await expect(attached(page)).to_have_count(3)
        await ask(page, "What are these?")
        seen, heard = media(server)
        assert isinstance(seen, Image)
        assert isinstance(heard, Audio)
        assert (heard.rate, len(heard.samples)) == (RATE, 4 * round(0.2 * RATE))
        ((_, content),) = server.turns()
        assert "The lighthouse is 31 metres high." in str(content)
        assert "under the mat" not in str(content)
        server.answer("Noise, a tone, a lighthouse.")
        await ended(page)
        await expect(page.locator(".question audio")).to_be_visible()
        # An edited question keeps its files.
        await page.get_by_role("button", name="Edit the question").click()
        await page.get_by_role("button", name="Ask again").click()
        assert [type(each) for each in media(server, 2)] == [Image, Audio]
        server.answer("The same.", number=2)
        await ended(page)


async def test_text_that_is_dragged_is_no_file(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        text = await page.evaluate_handle(
            "() => { const transfer = new DataTransfer(); transfer.setData('text/plain', 'words'); return transfer; }"
        )
        # The browser puts it where it is dropped, because the page does not prevent that.
        assert await page.get_by_role("textbox", name="Ask something").evaluate(DROP, text)
        await expect(attached(page)).to_have_count(0)


async def test_a_question_waits_for_files_that_are_read(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        # A file whose reading lasts until the test ends it.
        await page.evaluate(
            """() => {
                const read = FileReader.prototype.readAsDataURL;
                FileReader.prototype.readAsDataURL = function (blob) { window.go = () => read.call(this, blob); };
            }"""
        )
        dropped = await transfer(page, ("slow.png", "image/png", encoded(PICTURE)))
        await page.locator(".composer").dispatch_event("drop", {"dataTransfer": dropped})
        await expect(page.get_by_text("slow.png is being read.")).to_be_visible()
        await ask(page, "What is it?")
        await expect(page.get_by_role("textbox", name="Ask something")).to_have_value("What is it?")
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await page.evaluate("window.go()")
        await page.get_by_role("button", name="Send").click()
        assert len(media(server)) == 1
        server.answer("Noise.")
        await ended(page)


async def test_a_model_that_takes_no_pictures_says_so(visit: Visiting, tmp_path: Path) -> None:
    with steered(tmp_path) as server:
        async with visit(server.url, "chat") as shown:
            shown.may_fail = ("400 (Bad Request)", "422 (Unprocessable")
            page = shown.page
            dropped = await transfer(page, ("a.png", "image/png", encoded(PICTURE)))
            await page.locator(".composer").dispatch_event("drop", {"dataTransfer": dropped})
            await expect(attached(page)).to_have_count(1)
            await ask(page, "What is it?")
            await ended(page)
            await expect(page.locator(".answer .callout.bad")).to_contain_text("image")


async def test_texts_are_attached_and_what_no_model_reads_is_refused(
    visit: Visiting, server: Steered, tmp_path: Path
) -> None:
    notes, program = tmp_path / "notes.txt", tmp_path / "program.bin"
    notes.write_text("The key is under the mat.")
    program.write_bytes(b"\x7fELF\x00\xff\xfe")
    async with visit(server.url, "chat") as shown:
        page = shown.page
        async with page.expect_file_chooser() as chooser:
            await page.get_by_role("button", name="Attach files").click()
        await (await chooser.value).set_files([notes, program])
        await expect(page.locator(".toast.bad")).to_contain_text("program.bin: it is neither a picture")
        files = page.get_by_role("list", name="Files")
        await expect(files.get_by_role("listitem")).to_have_count(1)
        await ask(page, "Where is it?")
        ((_, content),) = server.turns()
        assert "The key is under the mat." in str(content)
        assert "Where is it?" in str(content)
        server.answer("There.")
        await ended(page)
        # The file stays with its question.
        await expect(page.locator(".question").get_by_role("list", name="Files")).to_contain_text("notes.txt")


async def test_the_text_of_a_pdf_file_is_attached(visit: Visiting, server: Steered, tmp_path: Path) -> None:
    report, damaged, empty = (tmp_path / name for name in ("report.pdf", "damaged.pdf", "scan.pdf"))
    report.write_bytes(pdf_file("The lighthouse is 31 metres high."))
    damaged.write_bytes(b"%PDF-1.4 and no more")
    empty.write_bytes(pdf_file(""))
    async with visit(server.url, "chat") as shown:
        page = shown.page
        async with page.expect_file_chooser() as chooser:
            await page.get_by_role("button", name="Attach files").click()
        await (await chooser.value).set_files([damaged, empty, report])
        await expect(page.locator(".toast.bad").first).to_contain_text("damaged.pdf: it is no PDF file")
        await expect(page.locator(".toast.bad").last).to_contain_text("scan.pdf: it has no text, only pictures.")
        files = page.get_by_role("list", name="Files")
        await expect(files).to_contain_text("report.pdf")
        await ask(page, "How high is it?")
        ((_, content),) = server.turns()
        assert "The lighthouse is 31 metres high." in str(content)
        server.answer("31 metres.")
        await ended(page)


def pdf_file(text: str) -> bytes:
    """A page with a text. Readers find its objects without an index."""
    content = f"BT /F1 18 Tf 20 100 Td ({text}) Tj ET"
    objects = (
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[4 0 R]/Count 1>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 5 0 R/Resources<</Font<</F1 3 0 R>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
    )
    body = "".join(f"{number} 0 obj{each} endobj\n" for number, each in enumerate(objects, 1))
    return f"%PDF-1.4\n{body}trailer<</Root 1 0 R>>\n".encode()
