"""What is kept of the texts of a request."""

from __future__ import annotations

from modelyard.yard.requests.transcript import MAX_ANSWER_CHARS, MAX_PROMPT_TOKENS, Transcript


def test_it_has_the_prompt_without_images_and_the_whole_answer() -> None:
    transcript = Transcript()
    transcript.read([1, -5, -5, 2])
    for piece in ("Hello", " world"):
        transcript.add(piece)
    assert (list(transcript.prompt), transcript.answer) == ([1, 2], "Hello world")
    size = transcript.size_bytes
    transcript.close()
    assert transcript.answer == "Hello world"
    assert transcript.size_bytes < size


def test_long_texts_are_cut() -> None:
    transcript = Transcript()
    transcript.read(range(MAX_PROMPT_TOKENS + 1))
    for _ in range(4):
        transcript.add("x" * (MAX_ANSWER_CHARS // 2 - 1))
    assert len(transcript.prompt) == MAX_PROMPT_TOKENS
    assert len(transcript.answer) == MAX_ANSWER_CHARS
    transcript.close()
    assert transcript.size_bytes <= 4 * (MAX_ANSWER_CHARS + MAX_PROMPT_TOKENS) + 4 * MAX_ANSWER_CHARS
