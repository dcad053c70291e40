"""Conversations and stored responses: kept, continued, listed a page at a time, and each key's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.conversations import Conversation, ConversationItemList

from modelyard.api.app import create_app
from modelyard.api.openai.responses import records, services
from modelyard.api.openai.responses.records import Record, RecordTable
from modelyard.api.openai.responses.services import MAX_REFERENCES
from modelyard.config import AccessKey, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.yard.yard import Yard
from support.scripted_server import ScriptedServer, scripted_server


def client_of(server: ScriptedServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url="http://localhost/v1", api_key="unused", http_client=server.client, _strict_response_validation=True
    )


async def test_a_conversation_is_created_changed_and_deleted(server: ScriptedServer) -> None:
    client = client_of(server)
    made = await client.conversations.create(items=[{"role": "user", "content": "Hi."}], metadata={"a": "b"})
    assert made == await client.conversations.retrieve(made.id)
    changed = await client.conversations.update(made.id, metadata={"c": "d"})
    assert (changed.id, changed.metadata) == (made.id, {"c": "d"})
    assert (await client.conversations.delete(made.id)).deleted
    for gone in (client.conversations.retrieve(made.id), client.conversations.items.list(made.id)):
        with pytest.raises(openai.NotFoundError, match="is not stored"):
            await gone


async def test_items_are_added_listed_and_removed(server: ScriptedServer) -> None:
    client = client_of(server)
    made = await client.conversations.create()
    added = await client.conversations.items.create(
        made.id, items=[{"type": "message", "role": "user", "content": f"{number}"} for number in range(5)]
    )
    assert len(added.data) == 5
    page = await client.conversations.items.list(made.id, limit=2)
    newest = [item async for item in page]
    assert [item.id for item in newest] == [item.id for item in reversed(added.data)]
    first = added.data[0].id
    assert await client.conversations.items.retrieve(first, conversation_id=made.id) == added.data[0]
    assert (await client.conversations.items.delete(first, conversation_id=made.id)).id == made.id
    with pytest.raises(openai.NotFoundError, match="has no item"):
        await client.conversations.items.retrieve(first, conversation_id=made.id)
    assert len([item async for item in await client.conversations.items.list(made.id, order="asc")]) == 4


async def test_a_response_continues_a_conversation_and_is_added_to_it(server: ScriptedServer) -> None:
    client = client_of(server)
    made = await client.conversations.create(items=[{"role": "user", "content": "I am Ann."}])
    for number in range(2):
        response = await client.responses.create(
            model="m", input=f"Question {number}", conversation=made.id, store=False
        )
        assert response.conversation is not None
        assert response.conversation.id == made.id
    assert [message["content"] for message in server.chat.messages] == [
        *("I am Ann.", "Question 0", "Hello world", "Question 1")
    ]
    items = [item async for item in await client.conversations.items.list(made.id, order="asc")]
    assert [item.role for item in items] == ["user", "user", "assistant", "user", "assistant"]


async def test_a_response_continues_another_with_all_that_was_said_before(server: ScriptedServer) -> None:
    client = client_of(server)
    first = await client.responses.create(model="m", input="One?", instructions="Not carried over.")
    second = await client.responses.create(model="m", input="Two?", previous_response_id=first.id)
    # What was before it is part of a response, and outlives the earlier one.
    await client.responses.delete(first.id)
    await client.responses.create(model="m", input="Three?", previous_response_id=second.id)
    assert [message["content"] for message in server.chat.messages] == [
        *("One?", "Hello world", "Two?", "Hello world", "Three?")
    ]


async def test_a_reference_stands_for_the_item_of_a_stored_response(server: ScriptedServer) -> None:
    client = client_of(server)
    first = await client.responses.create(model="m", input="One?")
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    unknown: Any = {"type": "item_reference", "id": "msg_unknown"}
    raw = await client.responses.with_raw_response.create(
        model="m", input=[reference, unknown, {"role": "user", "content": "Two?"}]
    )
    assert [message["content"] for message in server.chat.messages] == ["Hello world", "Two?"]
    assert raw.headers["x-modelyard-ignored"] == "input[1] (item_reference)"


async def test_the_input_of_a_response_is_listed_a_page_at_a_time(server: ScriptedServer) -> None:
    client = client_of(server)
    said: Any = [{"role": "user", "content": f"{number}"} for number in range(5)]
    response = await client.responses.create(model="m", input=said)

    async def texts(**fields: Any) -> list[str]:
        page = await client.responses.input_items.list(response.id, **fields)
        return [item.content[0].text async for item in page]

    assert await texts(limit=2) == ["4", "3", "2", "1", "0"]
    assert await texts(order="asc") == ["0", "1", "2", "3", "4"]
    for wrong in ({"limit": 0}, {"after": "msg_unknown"}):
        with pytest.raises(openai.BadRequestError, match=f"'{next(iter(wrong))}'"):
            await texts(**wrong)


async def test_nobody_reads_what_another_key_stored(tmp_path: Path) -> None:
    rights = frozenset(("inference", "read"))
    keys = [AccessKey(name, digest_of(f"{name}-key"), None, rights) for name in ("ann", "bob")]  # type: ignore[arg-type]
    async with scripted_server(tmp_path, keys=keys) as server:
        client = client_of(server)
        ann, bob = (client.with_options(api_key=f"{name}-key") for name in ("ann", "bob"))
        response = await ann.responses.create(model="m", input="Secret.")
        conversation = await ann.conversations.create(items=[{"role": "user", "content": "Secret."}])
        for stolen in (
            bob.responses.retrieve(response.id),
            bob.responses.delete(response.id),
            bob.responses.input_items.list(response.id),
            bob.responses.create(model="m", input="?", previous_response_id=response.id),
            bob.responses.create(model="m", input="?", conversation=conversation.id),
            bob.conversations.retrieve(conversation.id),
            bob.conversations.update(conversation.id, metadata={}),
            bob.conversations.delete(conversation.id),
            bob.conversations.items.list(conversation.id),
            bob.conversations.items.create(conversation.id, items=[{"role": "user", "content": "?"}]),
            bob.responses.retrieve(conversation.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await stolen
        reference: Any = {"type": "item_reference", "id": response.output[0].id}
        await bob.responses.create(model="m", input=[reference, {"role": "user", "content": "?"}])
        assert [message["content"] for message in server.chat.messages] == ["?"]
        assert (await ann.responses.retrieve(response.id)).id == response.id


async def test_a_restart_of_the_server_leaves_what_was_stored(tmp_path: Path) -> None:
    file = tmp_path / "responses" / "server.sqlite"
    async with scripted_server(tmp_path, responses_file=file) as server:
        client = client_of(server)
        first = await client.responses.create(model="m", input="One?")
        conversation = await client.conversations.create(items=[{"role": "user", "content": "Hi."}])
        await client.responses.create(model="m", input="Not stored.", store=False)
    assert b"Not stored." not in file.read_bytes()
    async with scripted_server(tmp_path, responses_file=file) as server:
        client = client_of(server)
        assert await client.responses.retrieve(first.id) == first
        await client.responses.create(model="m", input="Two?", previous_response_id=first.id)
        assert len(server.chat.messages) == 3
        items = await client.conversations.items.list(conversation.id)
        ConversationItemList.model_validate(items.model_dump())
        Conversation.model_validate((await client.conversations.retrieve(conversation.id)).model_dump())


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "content": "Hi."},
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "output": "1"},
        {"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]},
    ],
)
async def test_an_item_that_no_response_could_read_is_not_stored(server: ScriptedServer, item: dict[str, Any]) -> None:
    made = (await server.post("/v1/conversations")).json()
    good = {"role": "user", "content": "Hi."}
    for path in ("/v1/conversations", f"/v1/conversations/{made['id']}/items"):
        answer = await server.post(path, items=[good, item])
        assert answer.status_code == 400
        assert answer.json()["error"]["param"].startswith("items[1]")
    answer = await server.post("/v1/responses", model="m", input="Hi.", conversation=made["id"])
    assert answer.status_code == 200, answer.text
    assert len(server.chat.messages) == 1


async def test_a_conversation_holds_the_items_that_references_stand_for(server: ScriptedServer) -> None:
    client = client_of(server)
    first = await client.responses.create(model="m", input="One?")
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    made = await client.conversations.create(items=[reference])
    await client.responses.delete(first.id)
    items = await client.conversations.items.list(made.id)
    assert [item.type for item in items.data] == ["message"]


async def test_references_of_one_request_are_bounded(server: ScriptedServer) -> None:
    references = [{"type": "item_reference", "id": f"msg_{number}"} for number in range(MAX_REFERENCES + 1)]
    answer = await server.post("/v1/responses", model="m", input=[*references, {"role": "user", "content": "?"}])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
    answer = await server.post("/v1/responses", model="m", input=[*references[1:], {"role": "user", "content": "?"}])
    assert answer.status_code == 200, answer.text


async def test_a_chain_of_responses_is_bounded_as_a_conversation_is_and_can_be_compacted(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "MAX_CONVERSATION_ITEMS", 4)
    first = (await server.post("/v1/responses", model="m", input="One?")).json()
    second = (await server.post("/v1/responses", model="m", input="Two?", previous_response_id=first["id"])).json()
    refused = await server.post("/v1/responses", model="m", input="Three?", previous_response_id=second["id"])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
    assert "/v1/responses/compact" in refused.json()["error"]["message"]
    compacted = await server.post("/v1/responses/compact", model="m", previous_response_id=second["id"])
    assert compacted.status_code == 200, compacted.text


async def test_an_answer_does_not_make_a_conversation_longer_than_it_may_be(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "MAX_CONVERSATION_ITEMS", 1)
    made = (await server.post("/v1/conversations")).json()
    answer = await server.post("/v1/responses", model="m", input="One?", conversation=made["id"])
    assert answer.status_code == 200, answer.text
    listed = (await server.client.get(f"/v1/conversations/{made['id']}/items")).json()
    assert listed["data"] == []
    assert f"Did not change {made['id']}" in caplog.text


async def test_a_conversation_that_becomes_too_large_is_refused_and_stays_as_it_was(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    large = [{"role": "user", "content": "x" * 1000}]
    made = (await server.post("/v1/conversations")).json()
    for path in ("/v1/conversations", f"/v1/conversations/{made['id']}/items"):
        answer = await server.post(path, items=large)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "conversation")
        assert "/v1/responses/compact" in answer.json()["error"]["message"]
    assert (await server.client.get(f"/v1/conversations/{made['id']}")).json() == made


def test_few_items_with_many_or_long_parts_are_much() -> None:
    assert not services.is_much([{"type": "message", "content": [{"type": "input_text", "text": "Hi."}]}] * 50)
    assert services.is_much([{"type": "message", "content": [{"type": "input_text", "text": "Hi."}] * 1000}])
    assert services.is_much([{"type": "message", "content": [{"type": "input_text", "text": "x" * 10**7}]}])


async def test_the_end_of_an_application_closes_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[RecordTable] = []
    monkeypatch.setattr(RecordTable, "close", lambda table: closed.append(table))
    yard = Yard(validate_config({"models": [{"model_id": "m.gguf", "load": "on-demand"}]}))
    app = create_app(yard, responses_file=tmp_path / "responses" / "server.sqlite")
    async with app.router.lifespan_context(app):
        app.state.responses.store.keep(Record("resp_1", None, {}))
        assert not closed
    (table,) = closed
    assert table.find("resp_1", None) is not None
    monkeypatch.undo()
    table.close()
