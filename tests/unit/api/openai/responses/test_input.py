"""Input items of /v1/responses, as messages for the model and as /input_items lists them."""

from __future__ import annotations

from modelyard.api.openai.responses.schema import ResponsesRequest, listed_item


def test_a_call_that_broke_off_is_read_as_the_text_that_it_was() -> None:
    body = ResponsesRequest.model_validate(
        {
            "input": [
                {"role": "user", "content": "Weather?"},
                {"type": "function_call", "status": "incomplete", "call_id": "c", "name": "f", "arguments": '{"a": '},
                {"role": "assistant", "content": '{"name": "f", "arguments": {"a": '},
            ]
        }
    )
    assert [message["role"] for message in body.messages(())] == ["user", "assistant"]
    assert "tool_calls" not in body.messages(())[1]


def test_items_are_listed_with_ids_and_parts_however_they_came() -> None:
    body = ResponsesRequest.model_validate({"input": "Hello!"})
    listed = listed_item(body.input[0])
    assert listed["id"].startswith("msg_")
    assert (listed["type"], listed["role"], listed["status"]) == ("message", "user", "completed")
    assert listed["content"] == [{"type": "input_text", "text": "Hello!"}]
    again = ResponsesRequest.model_validate({"input": [{**listed, "id": "msg_mine"}]})
    assert listed_item(again.input[0]) == {**listed, "id": "msg_mine"}
