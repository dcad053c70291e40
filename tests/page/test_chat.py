"""The chat, on models that say what a test has them say."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.async_api import Locator, Page, expect

from modelyard.protocol.requests import Cancel, Submit
from support.chat_page import ask, choose, ended, open_settings
from support.chromium import IN_BROWSER, Visiting
from support.scripted_engines import ScriptedEngine
from support.steered import Steered, steered

pytestmark = [pytest.mark.browser, *IN_BROWSER]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Steered]:
    with steered(tmp_path) as running:
        yield running


async def test_an_answer_is_shown_as_it_arrives(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        await ask(shown.page, "Why is the sky blue?")
        engine = server.engine()
        engine.heard(Submit)
        engine.say("Because **light", "** is")
        answer = shown.page.locator(".answer")
        await expect(answer.locator("strong")).to_have_text("light")
        await expect(answer).to_have_attribute("aria-busy", "true")
        engine.say(" scattered.")
        engine.finish()
        await ended(shown.page)
        await expect(answer.locator(".md")).to_have_text("Because light is scattered.")
        await expect(answer).to_contain_text("3 tokens")
        await expect(answer).to_contain_text("first token")
        # The title is the question, and the conversation has an address.
        await expect(shown.page.get_by_role("heading", name="Why is the sky blue?")).to_be_visible()
        assert "#/chat/" in shown.page.url


async def test_an_answer_whose_model_loads_shows_how_far_it_is(visit: Visiting, tmp_path: Path) -> None:
    with steered(tmp_path, loads=False, model={"load": "on-demand"}) as server:
        async with visit(server.url, "chat") as shown:
            await ask(shown.page, "Hello")
            engine = await asyncio.to_thread(server.engine)
            engine.progress(0.5)
            await expect(shown.page.locator(".answer .waiting")).to_contain_text(re.compile(r"being loaded: 50\s%"))
            engine.load()
            await expect(shown.page.locator(".answer .waiting")).to_have_text("Waiting for the first token …")
            await asyncio.to_thread(server.answer, "Hi.")
            await ended(shown.page)
            await expect(shown.page.locator(".answer .waiting")).to_have_count(0)


async def counting(page: Page, server: Steered) -> tuple[ScriptedEngine, Locator]:
    """The engine of an answer that has begun, and the answer on the page."""
    await ask(page, "Count.")
    engine = server.engine()
    engine.heard(Submit)
    engine.say("One, two,")
    answer = page.locator(".answer")
    await expect(answer.locator(".md")).to_have_text("One, two,")
    return engine, answer


async def test_an_answer_is_stopped_and_goes_on(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        engine, answer = await counting(shown.page, server)
        await shown.page.get_by_role("button", name="Stop").click()
        engine.heard(Cancel)
        await expect(answer).to_contain_text("Stopped.")
        await answer.get_by_role("button", name="Continue").click()
        assert server.turns(number=2) == [("user", "Count."), ("assistant", "One, two,")]
        engine.say(" three.")
        engine.finish()
        await expect(answer.locator(".md")).to_have_text("One, two, three.")
        await ended(shown.page)


async def test_a_page_that_is_reloaded_in_mid_stream_shows_what_had_arrived(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        engine, answer = await counting(shown.page, server)
        await shown.page.reload()
        await expect(answer.locator(".md")).to_have_text("One, two,")
        await expect(answer).to_contain_text("The page was closed while this answer was written.")
        # The server stops an answer that nobody reads.
        engine.heard(Cancel)
        await answer.get_by_role("button", name="Continue").click()
        engine.heard(Submit, 2)
        engine.say(" three.")
        engine.finish()
        await expect(answer.locator(".md")).to_have_text("One, two, three.")


async def test_a_second_answer_and_another_question_are_versions(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        await ask(page, "Name a colour.")
        server.answer("Red")
        await ended(page)
        await page.get_by_role("button", name="Answer again").click()
        server.answer("Blue", number=2)
        await expect(page.locator(".answer .md")).to_have_text("Blue")
        versions = page.get_by_role("group", name="Versions")
        await expect(versions).to_contain_text("2 / 2")
        await versions.get_by_role("button", name="Previous version").click()
        await expect(page.locator(".answer .md")).to_have_text("Red")
        # The next question follows the version that is shown.
        await ask(page, "Why?")
        assert server.turns(number=3) == [("user", "Name a colour."), ("assistant", "Red"), ("user", "Why?")]
        server.answer("Because.", number=3)
        await ended(page, 2)
        await page.get_by_role("button", name="Edit the question").first.click()
        await page.get_by_role("textbox", name="Edit the question").fill("Name a number.")
        await page.get_by_role("button", name="Ask again").click()
        assert server.turns(number=4) == [("user", "Name a number.")]
        server.answer("Seven", number=4)
        await expect(page.locator(".answer .md")).to_have_text("Seven")
        await versions.get_by_role("button", name="Previous version").first.click()
        await expect(page.locator(".answer .md").first).to_have_text("Red")
        await page.reload()
        await expect(page.locator(".answer .md").first).to_have_text("Red")


async def test_a_link_opens_a_chat_and_sends_nothing(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat?model=m&prompt=What%20is%20%231%3F") as shown:
        field = shown.page.get_by_role("textbox", name="Ask something")
        await expect(field).to_have_value("What is #1?")
        assert not any("completions" in url for url in shown.requests)
        await field.press("Enter")
        assert server.turns() == [("user", "What is #1?")]
        server.answer("First.")
        await ended(shown.page)


async def test_a_link_opens_a_chat_with_several_models(visit: Visiting, tmp_path: Path) -> None:
    names = ("one", "a/b?c#d&e=%41 ü")
    with steered(tmp_path, names) as server:
        query = urlencode([*(("model", name) for name in names), ("prompt", "Who are <b>you</b>?\n1 + 1 & 100 %")])
        async with visit(server.url, f"chat?{query}") as shown:
            page = shown.page
            field = page.get_by_role("textbox", name="Ask something")
            await expect(field).to_have_value("Who are <b>you</b>?\n1 + 1 & 100 %")
            await expect(page.get_by_role("button", name=f"Models: {', '.join(names)}")).to_be_visible()
            # A reload neither sends the question nor writes it twice.
            assert "prompt" not in page.url
            # The link is followed once more from within the page, where another conversation is open.
            await field.press("Enter")
            for name in names:
                server.answer(f"I am {name}.", model=name)
            await ended(page, 2)
            await shown.go("chat?model=one&prompt=And%20now%3F")
            await expect(field).to_have_value("And now?")
            await expect(page.locator(".answer")).to_have_count(0)
            assert len(server.engine("one").heard(Submit)) == 1


async def test_enter_sends_and_shift_enter_is_a_line(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        field = shown.page.get_by_role("textbox", name="Ask something")
        await field.type("one")
        await shown.page.keyboard.press("Shift+Enter")
        await field.type("two")
        await shown.page.keyboard.press("Enter")
        assert server.turns() == [("user", "one\ntwo")]
        server.answer("Yes.")
        await ended(shown.page)


async def test_settings_of_a_chat_are_sent(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        settings = await open_settings(shown.page)
        await settings.get_by_label("System prompt").fill("Be brief.")
        await settings.get_by_label("Temperature").fill("0.25")
        await settings.get_by_label("Most tokens in an answer").fill("12")
        await settings.get_by_label("JSON schema of the answer").fill("{not json")
        await settings.get_by_role("button", name="Save").click()
        # It says what is wrong, and stays open.
        await expect(shown.page.locator(".toast.bad")).to_contain_text("Schema")
        await settings.get_by_label("JSON schema of the answer").fill("")
        await settings.get_by_role("button", name="Save").click()
        await ask(shown.page, "Hello")
        assert server.turns() == [("system", "Be brief."), ("user", "Hello")]
        (submit,) = server.engine().heard(Submit)
        assert isinstance(submit, Submit)
        assert (submit.sampling.temperature, submit.max_tokens) == (0.25, 12)
        server.answer("Hi.")
        await ended(shown.page)


async def test_conversations_are_found_renamed_and_deleted(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        for number, (question, answer) in enumerate([("First one", "A lighthouse."), ("Second one", "A whale.")], 1):
            await page.get_by_role("button", name="New chat").click()
            await ask(page, question)
            server.answer(answer, number=number)
            await ended(page)
        listed = page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
        await expect(listed).to_have_count(2)
        search = page.get_by_role("searchbox", name="Search conversations")
        await search.fill("LIGHTHOUSE")
        await expect(listed).to_have_count(1)
        await expect(listed).to_contain_text("First one")
        await search.fill("no such word")
        await expect(page.get_by_text("Nothing found.")).to_be_visible()
        await search.fill("")
        await choose(page, "Actions: First one", "Rename")
        await page.get_by_role("textbox", name="Title").fill("About the sea")
        await page.get_by_role("button", name="Save").click()
        await expect(listed.filter(has_text="About the sea")).to_have_count(1)
        await choose(page, "Actions: Second one", "Delete")
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await expect(listed).to_have_count(1)
        await page.reload()
        await expect(listed).to_have_count(1)
        await listed.get_by_role("link").click()
        await expect(page.locator(".answer .md")).to_have_text("A lighthouse.")


async def test_conversations_are_exported_and_imported_elsewhere(
    visit: Visiting, server: Steered, tmp_path: Path
) -> None:
    async with visit(server.url, "chat") as shown:
        await ask(shown.page, "Name a colour.")
        server.answer("Red, *really*")
        await ended(shown.page)
        async with shown.page.expect_download() as markdown:
            await choose(shown.page, "Actions: Name a colour.", "Export as Markdown")
        saved = tmp_path / "one.md"
        await (await markdown.value).save_as(saved)
        text = saved.read_text()
        assert "Name a colour." in text
        assert "Red, *really*" in text
        async with shown.page.expect_download() as file:
            await choose(shown.page, "All conversations", "Export all (JSON)")
        exported = tmp_path / "all.json"
        await (await file.value).save_as(exported)
        assert len(json.loads(exported.read_text())["conversations"]) == 1
    async with visit(server.url, "chat") as other:
        async with other.page.expect_file_chooser() as chooser:
            await choose(other.page, "All conversations", "Import")
        await (await chooser.value).set_files(exported)
        await expect(other.page.get_by_text("One conversation imported.")).to_be_visible()
        await other.page.get_by_role("link", name="Name a colour.").click()
        await expect(other.page.locator(".answer .md em")).to_have_text("really")
        broken = tmp_path / "broken.json"
        broken.write_text('{"format": "something else"}')
        async with other.page.expect_file_chooser() as chooser:
            await choose(other.page, "All conversations", "Import")
        await (await chooser.value).set_files(broken)
        await expect(other.page.locator(".toast.bad")).to_be_visible()


async def test_an_error_of_the_server_is_shown_in_the_answer(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        shown.may_fail = ("404 (Not Found)",)
        page = shown.page
        await shown.go("chat?model=unknown&prompt=Hello")
        await expect(page.get_by_role("textbox", name="Ask something")).to_have_value("Hello")
        await page.keyboard.press("Enter")
        await ended(page)
        await expect(page.locator(".answer .callout.bad")).to_contain_text("unknown")


MODELS = ("one", "two", "three", "four")


async def test_four_models_answer_side_by_side_and_one_of_them_goes_on(visit: Visiting, tmp_path: Path) -> None:
    with steered(tmp_path, (*MODELS, "five")) as server:
        async with visit(server.url, "chat") as shown:
            page = shown.page
            await page.get_by_role("button", name="Models: one").click()
            for name in MODELS[1:]:
                await page.get_by_role("checkbox", name=name, exact=True).check()
            # No more than four.
            await expect(page.get_by_role("checkbox", name="five")).to_be_disabled()
            await page.keyboard.press("Escape")
            await ask(page, "Who are you?")
            for name in MODELS:
                server.engine(name).heard(Submit)
                server.engine(name).say(f"I am **{name}**")
            for name in MODELS:
                column = page.get_by_role("region", name=name)
                await expect(column.locator("strong").last).to_have_text(name)
                await expect(column.locator(".answer")).to_have_attribute("aria-busy", "true")
            for name in MODELS:
                server.engine(name).finish()
            await ended(page, 4)
            await expect(page.locator(".answer-foot").nth(3)).to_contain_text("tokens")
            await page.get_by_role("button", name="Go on with this: three").click()
            await page.get_by_role("button", name="Models: one, two, three, four").click()
            await page.locator(".picker-row", has_text="two").get_by_role("button", name="Only this").click()
            await ask(page, "Really?")
            assert server.turns("two", 2) == [
                ("user", "Who are you?"),
                ("assistant", "I am **three**"),
                ("user", "Really?"),
            ]
            server.answer("Yes.", model="two", number=2)
            await ended(page, 5)


async def test_answers_stream_on_while_another_page_is_shown(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        await ask(shown.page, "Count.")
        engine = server.engine()
        engine.heard(Submit)
        engine.say("One,")
        await expect(shown.page.locator(".answer .md")).to_have_text("One,")
        await shown.page.get_by_role("link", name="Models").click()
        engine.say(" two.")
        engine.finish()
        await shown.page.get_by_role("link", name="Chat").click()
        await expect(shown.page.locator(".answer .md")).to_have_text("One, two.")
        await ended(shown.page)
