"""What tools of MCP servers return, as text."""

import mcp_types as types

from modelyard.mcp.results import failed, resource_result_of, result_of

LIMIT = 1000


def text(*blocks, limit=LIMIT, **fields):
    return result_of(types.CallToolResult(content=list(blocks), **fields), limit)


def block(text):
    return types.TextContent(type="text", text=text)


def test_texts_follow_one_another_on_lines():
    assert text(block("a"), block(""), block("b")).text == "a\nb"


def test_an_error_stays_one():
    result = text(block("no"), is_error=True)
    assert (result.text, result.is_error) == ("no", True)
    assert text(is_error=True).text == "The tool failed, and did not say why."


def test_images_and_sound_are_named_as_left_out():
    image = types.ImageContent(type="image", data="AAAA" * 300, mime_type="image/png")
    sound = types.AudioContent(type="audio", data="AAAA", mime_type="audio/wav")
    assert text(block("See:"), image, sound).text == (
        "See:\n[An image is left out: image/png, 900 B.]\n[A sound is left out: audio/wav, 3 B.]"
    )


def test_embedded_resources_are_their_text_and_others_are_named():
    note = types.TextResourceContents(uri="file:///a", text="note")
    blob = types.BlobResourceContents(uri="file:///b", blob="AAAA", mime_type="application/zip")
    link = types.ResourceLink(type="resource_link", uri="file:///c", name="c", description="about c")
    embedded = [types.EmbeddedResource(type="resource", resource=each) for each in (note, blob)]
    assert text(*embedded, link).text == (
        "note\n[A file is left out: file:///b, application/zip, 3 B.]\n[Resource c: file:///c (about c)]"
    )


def test_structured_content_stands_for_missing_text():
    assert text(structured_content={"a": "ö"}).text == '{"a": "ö"}'
    assert text(block("said"), structured_content={"a": 1}).text == "said"


def test_nothing_is_said_to_be_nothing():
    assert text().text == "(The tool returned nothing.)"


def test_a_long_result_is_cut_between_characters_and_says_so():
    result = text(block("ä" * 600), block("b" * 600), limit=999)
    assert result.is_cut
    assert result.text == ("ä" * 499 + "\n\n[The result was cut here: it has 1801 bytes, and 999 are the limit.]")


def test_text_that_is_no_text_is_replaced():
    assert text(block("a\0b\ud800c")).text == "a\N{REPLACEMENT CHARACTER}b?c"


def test_a_resource_is_its_contents():
    contents = [types.TextResourceContents(uri="a:b", text="x"), types.TextResourceContents(uri="a:c", text="y")]
    assert resource_result_of(types.ReadResourceResult(contents=contents), LIMIT).text == "x\ny"
    assert resource_result_of(types.ReadResourceResult(contents=[]), LIMIT).text == "(The resource is empty.)"


def test_a_call_that_cannot_be_made_is_an_error():
    assert failed("Why.").is_error
