"""A chat without a terminal and without weights: what its lines do, and what the model is sent."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import pytest

from modelyard.agent.agent import Agent
from modelyard.agent.tools import ReportProgress, ToolResult
from modelyard.cli.chat.client import Client
from modelyard.cli.chat.connection import Connection
from modelyard.cli.chat.loading import pauses
from modelyard.cli.chat.loop import converse, obey
from modelyard.cli.chat.question import Question, ask
from modelyard.cli.chat.session import Chat, Switches
from modelyard.cli.chat.stored import PromptHistory, SavedConversations, prompt_history
from modelyard.cli.chat.terminal import Terminal
from modelyard.config import validate_config
from modelyard.errors import ContextLengthExceeded, InvalidRequest, ServerRefused
from modelyard.inprocess.asgi import in_process_app
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.inprocess.transport import async_http_client
from modelyard.protocol.prompts import Chat as ChatPrompt
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import OutputFormat
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_tools import ScriptedTools, add, server_tool
from support.tool_turns import call

THINKING = OutputFormat("hermes", "think", is_open=False)


@dataclass
class Script:
    """What the models answer, and what they were sent.

    Attributes:
        answers: the texts of the next answers, in pieces, or errors; the last one answers all that come later.
        asked: the prompts.
    """

    answers: list[Sequence[str] | Exception] = field(default_factory=lambda: [["Hello", " there."]])
    asked: list[Submit] = field(default_factory=list)
    fits: Callable[[Submit], bool] = lambda _: True

    def answer(self, submit: Submit) -> Iterable[str]:
        if not self.fits(submit):
            raise ContextLengthExceeded(100, 200)
        self.asked.append(submit)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """The last conversation that a model was sent."""
        prompt = self.asked[-1].prompt
        assert isinstance(prompt, ChatPrompt)
        return [(str(message["role"]), message["content"]) for message in prompt.messages]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def tools() -> ScriptedTools:
    return ScriptedTools()


@pytest.fixture
def chat(script: Script, tools: ScriptedTools, tmp_path: Path) -> Iterator[Chat]:
    write(tmp_path / "tiny.gguf", tiny_model())
    models = [{"model_id": "./tiny.gguf", "alias": name} for name in ("first", "second")]
    config = validate_config({"models": models}, source="test", base=tmp_path)
    engines = ScriptedEngines(answer=script.answer, output_format=THINKING)

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[httpx2.AsyncClient]:
        yard = Yard(config, engines.make_handle)
        try:
            await yard.start()
            async with async_http_client(in_process_app(yard, Agent.of([tools]))) as client:
                yield client
        finally:
            await yard.close()

    with contextlib.closing(LoopThread(connect, "test models")) as thread:
        client = Client(thread, "this test")
        history = PromptHistory(tmp_path / "history")
        saved = SavedConversations(tmp_path / "state" / "conversations")
        yield Chat(client, Terminal({}), saved, history, client.model("first"), model_ids=["first", "second"])
    assert engines.end()


Say = Callable[..., str]


@pytest.fixture
def say(chat: Chat, capsys: pytest.CaptureFixture[str]) -> Say:
    """Sends lines to the chat, and returns what is printed."""

    def say(*lines: str) -> str:
        capsys.readouterr()
        for line in lines:
            obey(chat, line)
        printed = capsys.readouterr()
        return " ".join((printed.out + printed.err).split())

    return say


def test_a_conversation_is_sent_whole(say: Say, script: Script) -> None:
    assert say("Hi", "Again") == "Hello there. Hello there."
    assert script.messages == [("user", "Hi"), ("assistant", "Hello there."), ("user", "Again")]


def test_reasoning_is_no_part_of_what_is_sent_later(say: Say, script: Script, chat: Chat) -> None:
    script.answers = [["<think>Hm.</think>", "\n\nFour."], ["Five."]]
    assert say("2 + 2?") == "Four."
    say("And 1 more?")
    assert script.messages[1] == ("assistant", "Four.")
    assert chat.conversation.turns[1].reasoning == "Hm."


def test_the_oldest_turns_are_left_out_where_the_context_is_full(say: Say, script: Script, chat: Chat) -> None:
    say("/system Be brief.", "one", "two", "three")
    script.fits = lambda submit: len(submit.prompt.messages) <= 4  # type: ignore[union-attr]
    said = say("four")
    assert "is full: the oldest 4 turns are no longer sent" in said
    assert [text for _, text in script.messages] == ["Be brief.", "three", "Hello there.", "four"]
    assert len(chat.conversation.turns) == 8
    assert "no longer sent" not in say("/clear", "five")


def test_a_message_that_does_not_fit_by_itself_is_refused_and_can_be_edited(
    say: Say, script: Script, chat: Chat
) -> None:
    say("one")
    script.fits = lambda submit: "long" not in str(submit.prompt)
    with pytest.raises(ServerRefused, match="Shorten the prompt"):
        obey(chat, "long")
    assert [turn.text for turn in chat.conversation.turns] == ["one", "Hello there."]
    say("/edit")
    assert chat.prefill == "long"
    say("short")
    assert [text for _, text in script.messages] == ["one", "Hello there.", "short"]


def test_a_failed_request_keeps_the_conversation_and_retry_sends_it_again(say: Say, script: Script, chat: Chat) -> None:
    script.answers = [InvalidRequest("No."), ["Yes."]]
    with pytest.raises(ServerRefused, match="No"):
        obey(chat, "Hi")
    assert chat.conversation.turns == ()
    assert say("/retry") == "Yes."
    assert script.messages == [("user", "Hi")]


def test_the_last_answer_can_be_made_again_edited_and_undone(say: Say, script: Script, chat: Chat) -> None:
    say("one", "two")
    script.answers = [["Another."]]
    assert say("/retry") == "Another."
    assert [turn.text for turn in chat.conversation.turns] == ["one", "Hello there.", "two", "Another."]
    say("/edit")
    assert chat.prefill == "two"
    say("deux")
    assert [text for _, text in script.messages] == ["one", "Hello there.", "deux"]
    say("/edit", "/undo", "three")
    assert [text for _, text in script.messages] == ["one", "Hello there.", "three"]
    say("/undo", "/undo")
    with pytest.raises(InvalidRequest, match="nothing to undo"):
        obey(chat, "/undo")


def test_a_model_is_switched_in_the_middle_of_a_conversation(say: Say, script: Script, chat: Chat) -> None:
    say("one")
    assert "second answers from now on" in say("/model second")
    say("two")
    assert [text for _, text in script.messages] == ["one", "Hello there.", "two"]
    assert [turn.model for turn in chat.conversation.turns if turn.role == "assistant"] == ["first", "second"]
    with pytest.raises(InvalidRequest, match="Did you mean 'second'"):
        obey(chat, "/model secnd")
    assert "* second loaded" in say("/models")


def test_a_base_model_continues_text_and_goes_on_at_enter(
    say: Say, script: Script, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.cli.chat.client.ModelEntry.can_chat", False)
    script.answers = [[" upon a time,"], [" a fox."]]
    assert "base model: it has no chat template" in say("/model second")
    say("Once", "")
    assert chat.conversation.document() == "Once upon a time, a fox."
    assert "Once upon a time," in str(script.asked[-1].prompt)


def test_settings_reach_the_model_and_can_be_reset(say: Say, script: Script) -> None:
    assert say("/set temperature 0.25", "/set parameter top_k 7", "/set stop 'A B' C") == (
        'temperature: 0.25 top_k: 7 stop: "A B" "C"'
    )
    say("Hi")
    sent = script.asked[-1]
    assert (sent.sampling.temperature, sent.sampling.top_k, tuple(sent.stop)) == (0.25, 7, ("A B", "C"))
    assert "temperature: 0.25" in say("/set")
    assert say("/unset temperature") == "temperature: the default of the model"
    say("Hi")
    assert script.asked[-1].sampling.temperature != 0.25


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/set temperature 500", "temperature must be less than or equal to 100"),
        ("/set temprature 1", "Did you mean temperature"),
        ("/set parameter num_ctx 4096", "'num_ctx' is decided when the model is loaded, not in a chat: modelyard run"),
        ("/set nowordwrap", "answers are always wrapped at words"),
        ("/show license", "/show takes nothing, system or parameters, not 'license'"),
        ("/set think maybe", "/set think takes no value, or on or off, not 'maybe'"),
        ("/image", "/image needs a file"),
        ("/image no.png what?", "no.png: The image cannot be read: No such file or directory"),
        ("/image . what?", "it is a folder"),
        ("/file /dev/zero", "it is no regular file"),
        ("/save", "/save needs a name"),
        ("/load nothing", "There is no saved conversation 'nothing'"),
        ("/load second", "/model second goes on with that model"),
        ("/load ../../etc/passwd", "is no name for a conversation"),
        ("/export notes.txt", "/export writes FILE.md or FILE.json, not 'notes.txt'"),
        ("/copy", "There is no answer to copy"),
        ("/retry", "There is no message to answer again"),
        ("/stats", "There is no answer yet"),
        ("/undo 3", "/undo takes no argument"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(line: str, problem: str, chat: Chat) -> None:
    with pytest.raises(InvalidRequest) as refused:
        obey(chat, line)
    assert problem in str(refused.value)


def test_a_long_load_is_looked_at_less_and_less_often() -> None:
    waits = list(islice(pauses(), 100))
    assert waits == sorted(waits)
    assert sum(waits[:5]) < 2
    assert 150 < sum(waits) < 200


def test_the_model_the_system_prompt_and_the_settings_are_shown(say: Say, chat: Chat) -> None:
    assert say("/show info") == say("/show") == say("/model")
    assert say("/system Be brief.", "/show system").endswith("System prompt: Be brief.")
    assert say("/unset system") == say('/set system ""') == "There is no system prompt now."
    assert "temperature: 0.5" in say("/set temperature 0.5", "/show parameters")
    assert say("/set parameter") == say("/set")


def test_an_unknown_command_names_the_nearest_and_is_not_sent(say: Say, script: Script) -> None:
    assert "There is no command /stat. Did you mean /stats?" in say("/stat")
    assert not script.asked
    say("//stat")
    assert script.messages == [("user", "/stat")]


def test_files_go_with_the_message(say: Say, script: Script, tmp_path: Path, chat: Chat) -> None:
    (tmp_path / "notes.txt").write_text("Buy ```milk```.\n")
    say(f"/file {tmp_path}/notes.txt", "What is this?")
    assert script.messages == [("user", "notes.txt:\n````\nBuy ```milk```.\n````\n\nWhat is this?")]
    (tmp_path / "a b.png").write_bytes(b"\x89PNG")
    with pytest.raises(ServerRefused, match="takes no images"):
        obey(chat, f"'{tmp_path}/a b.png' What is this?")
    assert chat.unanswered is not None
    assert [attachment.name for attachment in chat.unanswered.attachments] == ["a b.png"]
    # The refused image does not go with the next message.
    say("Never mind.")
    assert script.messages[-1] == ("user", "Never mind.")


def test_a_base_model_refuses_an_image_instead_of_losing_it(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.cli.chat.client.ModelEntry.can_chat", False)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidRequest, match="takes text alone"):
        obey(chat, f"/image {tmp_path}/a.png What is this?")


def test_a_conversation_is_saved_for_its_user_alone_and_loaded(
    say: Say, script: Script, chat: Chat, tmp_path: Path
) -> None:
    say("/system Be brief.", "one", "/save my talk")
    assert stat.S_IMODE((tmp_path / "state" / "conversations" / "my talk.json").stat().st_mode) == 0o600
    say("two", "/save my talk", "/clear", "/system none")
    with pytest.raises(InvalidRequest, match="/save -f my talk overwrites it"):
        _say_and_save(chat, "my talk")
    assert "my talk" in say("/load")
    assert "Hello there. Loaded 'my talk' (4 turns)." in say("/load my talk")
    say("three")
    assert [text for _, text in script.messages][:2] == ["Be brief.", "one"]
    assert len(script.messages) == 6


def _say_and_save(chat: Chat, name: str) -> None:
    obey(chat, "another")
    obey(chat, f"/save {name}")


def test_a_conversation_is_exported_without_overwriting(say: Say, chat: Chat, tmp_path: Path) -> None:
    say("one", f"/export {tmp_path}/talk.md", f"/export {tmp_path}/talk.json")
    assert "## You\n\none\n\n## first\n\nHello there." in (tmp_path / "talk.md").read_text()
    assert json.loads((tmp_path / "talk.json").read_text())["messages"][0] == {"role": "user", "content": "one"}
    with pytest.raises(InvalidRequest, match=r"/export -f .* overwrites it"):
        obey(chat, f"/export {tmp_path}/talk.md")
    say(f"/export -f {tmp_path}/talk.md")


def test_tokens_and_speed_are_told(say: Say) -> None:
    assert say("/tokens") == "0 tokens of 2,048 (0 %)"
    said = say("/set verbose", "one two three", "/tokens", "/stats")
    assert "prompt: 3 tokens" in said
    assert "5 tokens of 2,048" in said
    assert "1 answer in this chat" in said


class Typed:
    """A prompt whose user types given lines; an exception stands for a key."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = list(lines)

    def ask(self, placeholder: str, default: str = "") -> str:
        line = self._lines.pop(0) if self._lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["/bye", "never"], 1),
        (["exit", "never"], 1),
        ([EOFError(), "never"], 1),
        ([KeyboardInterrupt(), KeyboardInterrupt(), "never"], 1),
        ([KeyboardInterrupt(), "/set quiet", KeyboardInterrupt(), EOFError(), "never"], 1),
    ],
)
def test_a_chat_is_left_in_every_usual_way(lines: list[Any], left: int, chat: Chat) -> None:
    prompt = Typed(*lines)
    converse(chat, prompt)
    assert len(prompt._lines) == left


def test_an_error_does_not_end_the_chat(chat: Chat, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    converse(chat, Typed("/set temperature x", "Hi"))
    printed = capsys.readouterr()
    assert "error: temperature must be a number, not 'x'." in printed.err
    assert printed.out == "Hello there.\n"


def connection(chat: Chat) -> Connection:
    return Connection(chat.client, "first", "here", is_own=True)


def test_a_question_is_answered_as_one_json_object(
    chat: Chat, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.answers = [["<think>Hm.</think>", "Four."]]
    question = Question("2 + 2?", system="Be brief.", switches=Switches({"seed": 1}), prints_json=True)
    assert ask(connection(chat), question, chat.terminal) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["answer"], answer["reasoning"], answer["finish_reason"]) == ("Four.", "Hm.", "stop")
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["timings"]["predicted_n"] == 2
    assert script.messages == [("system", "Be brief."), ("user", "2 + 2?")]
    assert script.asked[-1].sampling.seed == 1


def test_control_characters_of_json_do_not_reach_a_terminal(
    chat: Chat, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.answers = [["a\x9b31mb"], ["a\x9b31mb"]]
    for is_terminal, shown in ((True, "a31mb"), (False, "a\x9b31mb")):
        chat.terminal.is_terminal = is_terminal
        assert ask(connection(chat), Question("Hi", prints_json=True), chat.terminal) == 0
        assert json.loads(capsys.readouterr().out)["answer"] == shown


def test_the_history_of_the_prompt_is_private_and_can_be_left_out(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    history = prompt_history(environ)
    history.append_string("one\ntwo")
    file = tmp_path / "modelyard" / "chat_history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(prompt_history(environ).load_history_strings()) == ["one\ntwo"]
    assert not isinstance(prompt_history({**environ, "MODELYARD_NO_HISTORY": "1"}), PromptHistory)
    assert isinstance(history, PromptHistory)
    history.is_kept = False
    history.append_string("secret")
    assert "secret" not in file.read_text()
    file.write_text("".join(f"\n# sent\n+message {number}\n" for number in range(100_000)))
    kept = list(prompt_history(environ).load_history_strings())
    assert kept[0] == "message 99999"
    assert len(kept) < 50_000


def test_a_history_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "modelyard").mkdir()
    (tmp_path / "other").write_text("kept")
    (tmp_path / "modelyard" / "chat_history").symlink_to(tmp_path / "other")
    history = prompt_history({"XDG_STATE_HOME": str(tmp_path)})
    history.append_string("one")
    assert (tmp_path / "other").read_text() == "kept"


def test_a_tool_of_the_server_is_called_and_its_call_is_no_part_of_what_is_sent_later(
    say: Say, script: Script, tools: ScriptedTools, chat: Chat
) -> None:
    tools.offered = [server_tool("add", add)]
    script.answers = [[call("calc_add", a=1, b=2)], ["It is 3."], ["Yes."]]
    assert say("1 + 2?") == "It is 3."
    assert [turn.text for turn in chat.conversation.turns] == ["1 + 2?", "It is 3."]
    say("Sure?")
    assert script.messages == [("user", "1 + 2?"), ("assistant", "It is 3."), ("user", "Sure?")]


def test_a_call_that_needs_an_approval_is_denied_where_nobody_can_type(
    say: Say, script: Script, tools: ScriptedTools
) -> None:
    tools.offered = [server_tool("add", add, needs_approval=True)]
    script.answers = [[call("calc_add", a=1, b=2)], ["I may not."]]
    said = say("1 + 2?")
    assert "calc_add is denied: nobody can approve it: standard input is no terminal." in said
    assert "I may not." in said
    assert "standard input is no terminal" in str(script.messages)


def test_a_tool_does_not_run_again_where_the_context_is_full_after_it(
    script: Script, tools: ScriptedTools, chat: Chat
) -> None:
    ran: list[int] = []

    async def count(arguments: Mapping[str, Any], report: ReportProgress) -> ToolResult:
        ran.append(1)
        return await add(arguments, report)

    script.answers = [["Hello."], [call("calc_count")]]
    obey(chat, "Hi")
    tools.offered = [server_tool("count", count)]
    script.fits = lambda submit: not ran
    with pytest.raises(ServerRefused):
        obey(chat, "Count!")
    assert len(ran) == 1


def test_a_question_that_prints_json_lists_the_calls(
    script: Script, tools: ScriptedTools, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.offered = [server_tool("add", add)]
    script.answers = [[call("calc_add", a=1, b=2)], ["3"]]
    assert (
        ask(Connection(chat.client, "first", "here", is_own=True), Question("?", prints_json=True), Terminal({})) == 0
    )
    (called,) = json.loads(capsys.readouterr().out)["tool_calls"]
    assert (called["name"], called["result"], called["is_error"]) == ("calc_add", "3", False)


def test_tools_are_listed_and_switched_off(say: Say, script: Script, tools: ScriptedTools) -> None:
    assert "first has no tools." in say("/tools")
    tools.offered = [server_tool("add", add), server_tool("sub", add, needs_approval=True)]
    assert say("/tools") == "calc_add Does add. calc_sub (asks first) Does sub."
    say("/tools off", "Hi")
    prompt = script.asked[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert not prompt.tools
    assert "switched off" in say("/tools")
    say("/tools on", "Hi")
    prompt = script.asked[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert len(prompt.tools) == 2
