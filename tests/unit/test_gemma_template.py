"""examples/gemma.jinja."""

from pathlib import Path

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[True, False], ids=["trimmed", "untrimmed"])
def gemma(request):
    def refuse(message):
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=request.param, lstrip_blocks=request.param)
    environment.globals["raise_exception"] = refuse
    template = environment.from_string((ROOT / "examples" / "gemma.jinja").read_text())

    def render(*turns, add_generation_prompt=True):
        messages = [{"role": role, "content": content} for role, content in turns]
        return template.render(messages=messages, bos_token="<bos>", add_generation_prompt=add_generation_prompt)

    return render


def test_gemma_turns_alternate_between_user_and_model(gemma):
    text = gemma(("user", "Hi"), ("assistant", "Hello!"), ("user", " Bye\n"))
    assert text == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_gemma_puts_the_system_message_into_the_first_user_turn_alone(gemma):
    text = gemma(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yo"), ("user", "Bye"))
    assert text.startswith("<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYo")
    assert text.count("Be brief.") == 1


def test_gemma_joins_the_text_parts_of_a_message(gemma):
    parts = [{"type": "text", "text": "One, "}, {"type": "image_url"}, {"type": "text", "text": "two"}]
    text = gemma(("user", parts), add_generation_prompt=False)
    assert text == "<bos><start_of_turn>user\nOne,two<end_of_turn>\n"


@pytest.mark.parametrize(
    "roles",
    [["assistant"], ["user", "user"], ["user", "assistant", "assistant"], ["user", "tool"], ["system", "system"], []],
    ids=",".join,
)
def test_gemma_refuses_roles_that_do_not_alternate(gemma, roles):
    with pytest.raises(TemplateError):
        gemma(*((role, "text") for role in roles))
