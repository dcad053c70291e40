"""The grammar that all commands share: what is named, how it is refused, and with which exit code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from modelyard.cli import app, foreign, hosting
from modelyard.cli.commands import BY_NAME, COMMANDS, GROUPS
from modelyard.cli.exit_codes import CONFIGURATION, FAILURE, MEANINGS, MODEL, OK, PORT, USAGE
from modelyard.cli.options import ModelOptions
from modelyard.cli.served_models import _KEYS
from modelyard.config import Config, default_model
from modelyard.config.tables import TABLES
from modelyard.errors import PortUnavailable
from support.gguf_writer import tiny_model, write
from support.ollama_files import LIBRARY, OllamaFiles


def modelyard(*args: str) -> tuple[int, str]:
    """Run a command line: its exit code, and what it says, on one line."""
    done = CliRunner().invoke(app, list(args))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, re.sub(r"\s+", " ", done.output)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that would have been served."""
    configs: list[Config] = []
    monkeypatch.setattr(hosting, "host_server", lambda config, *_, **__: configs.append(config))
    return configs


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))


def ids(config: Config) -> list[str]:
    return [model.id for model in config.models]


# --- what is named


@pytest.mark.parametrize("given", ["8k", "8192"])
def test_a_context_length_is_a_number_or_has_a_unit(given: str, served: list[Config]) -> None:
    assert modelyard("serve", "a.gguf", "--ctx", given)[0] == OK
    assert served[0].models[0].device.max_seq_len == 8192


@pytest.mark.parametrize(
    "args",
    [("a.gguf", "b.gguf"), ("-m", "a.gguf", "-m", "b.gguf"), ("a.gguf", "--model", "b.gguf"), ("a.gguf", "b.gguf") * 2],
)
def test_every_model_that_is_named_is_served_and_the_first_is_the_default(
    args: tuple[str, ...], served: list[Config]
) -> None:
    assert modelyard("serve", *args)[0] == OK
    assert ids(served[0]) == ["a", "b"]
    assert served[0].default_model_id == "a.gguf"


def test_models_of_one_name_get_ids_that_differ_and_it_is_said(served: list[Config]) -> None:
    code, said = modelyard("serve", "x/m.gguf", "y/m.gguf")
    assert code == OK
    assert ids(served[0]) == ["m", "y/m"]
    assert "y/m.gguf is served as 'y/m': 'm' is another model." in said


def test_a_folder_of_several_models_serves_each_on_demand(tmp_path: Path, served: list[Config]) -> None:
    (tmp_path / "models").mkdir()
    for name in ("a.gguf", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf", "mmproj-a-F16.gguf"):
        (tmp_path / "models" / name).touch()
    assert modelyard("serve", "models", "first.gguf", "models/a.gguf", "./models/../models/a.gguf")[0] == OK
    assert [(model.id, model.load) for model in served[0].models] == [
        ("a", "on-demand"),
        ("big", "on-demand"),
        ("first", "startup"),
    ]


def test_the_default_of_a_folder_is_a_model_that_can_be_read(tmp_path: Path, served: list[Config]) -> None:
    (tmp_path / "models").mkdir()
    for name in ("a.gguf", "c.gguf"):
        (tmp_path / "models" / name).write_text("no model")
    write(tmp_path / "models" / "b.gguf", tiny_model())
    assert modelyard("serve", "models")[0] == OK
    assert default_model(served[0]) == "b"
    assert {model.id for model in served[0].models} == {"a", "b", "c"}


def test_a_folder_with_one_model_is_that_model(tmp_path: Path, served: list[Config]) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a-Q8_0.gguf").touch()
    (tmp_path / "one" / "mmproj-a-F16.gguf").touch()
    assert modelyard("serve", "one")[0] == OK
    assert [(model.id, model.load) for model in served[0].models] == [("one", "startup")]


def test_a_folder_is_one_model_where_an_option_chooses_among_its_files(tmp_path: Path, served: list[Config]) -> None:
    for name in ("a-Q4_0.gguf", "a-Q8_0.gguf"):
        (tmp_path / name).touch()
    assert modelyard("serve", ".", "--quant", "8")[0] == OK
    assert len(served[0].models) == 1


@pytest.mark.parametrize(
    "args", [("models.toml",), ("-f", "models.toml"), ("--config", "models.toml"), ("models.toml", "-f", "models.toml")]
)
@pytest.mark.parametrize("command", ["serve", "from-config"])
def test_a_configuration_is_an_argument_or_an_option(
    args: tuple[str, ...], command: str, tmp_path: Path, served: list[Config]
) -> None:
    (tmp_path / "models.toml").write_text('[[models]]\nmodel_id = "org/name"\n')
    assert modelyard(command, *args, "--port", "4321")[0] == OK
    assert ids(served[0]) == ["org/name"]
    assert served[0].server.port == 4321


@pytest.mark.parametrize("forms", [("m.gguf",), ("-m", "m.gguf"), ("m.gguf", "-m", "m.gguf")])
@pytest.mark.parametrize("command", ["resolve", "run", "quantize"])
def test_a_model_is_an_argument_or_an_option_in_every_command(command: str, forms: tuple[str, ...]) -> None:
    more = {"quantize": ["-o", "x.gguf"], "run": ["--local", "-i", "Hi"]}.get(command, [])
    code, said = modelyard(command, *forms, *more)
    assert code == MODEL
    assert "m.gguf' does not exist" in said


def test_a_model_of_ollama_brings_its_parameters(tmp_path: Path, served: list[Config]) -> None:
    parameters = b'{"temperature": 0.2, "num_ctx": 1234, "repeat_penalty": 1.1, "stop": ["x"]}'
    OllamaFiles(tmp_path / "ollama").add(*LIBRARY, "qwen3", "4b", model=b"GGUF", params=parameters)
    assert modelyard("serve", "ollama:qwen3:4b")[0] == OK
    (model,) = served[0].models
    assert model.id == "qwen3:4b"
    assert (model.sampling.temperature, model.sampling.repetition_penalty) == (0.2, 1.1)
    assert model.device.max_seq_len == 1234
    assert modelyard("serve", "ollama:qwen3:4b", "--ctx", "99")[0] == OK
    assert served[1].models[0].device.max_seq_len == 99


def test_serve_alone_says_what_it_takes_and_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[[models]]\n")
    (tmp_path / "other.toml").write_text("[project]\n")
    (tmp_path / "smol.gguf").write_bytes(b"GGUF...")
    (tmp_path / "page.gguf").write_text("<html>")
    code, said = modelyard("serve")
    assert code == USAGE
    assert "modelyard serve org/name:Q4_K_M" in said
    assert "Found on this machine: modelyard serve models.toml modelyard serve ./smol.gguf" in said
    assert "other.toml" not in said
    assert "page.gguf" not in said


# --- what is refused

REFUSALS = [
    ("serve a.gguf models.toml", "models.toml is a configuration, and a.gguf is a model."),
    ("serve a.gguf -f models.toml", "models.toml is a configuration, and a.gguf is a model."),
    ("serve -m models.toml", "-m models.toml: this is a configuration. Write: modelyard serve models.toml"),
    ("serve -f a.gguf", "to choose a file of a folder or repository, use --quantized-file."),
    ("serve a.toml b.toml", "serve takes one configuration, not a.toml and b.toml."),
    ("serve a.toml -f b.toml", "serve takes one configuration, not a.toml and b.toml."),
    ("from-config a.toml -f b.toml", "a.toml and --config b.toml are two configurations."),
    ("from-config", "No configuration is given. Write: modelyard from-config models.toml"),
    ("from-config a.gguf", "Write: modelyard serve a.gguf"),
    ("resolve", "No model is given. Write: modelyard resolve MODEL"),
    ("resolve a -m b", "a and --model b are two models, and resolve takes one."),
    ("resolve a b", "'b' is an argument too many: resolve takes MODEL."),
    ("serve models.toml --ctx 5", "--ctx is for models that the command line names. In models.toml, write max_seq_len"),
    ("serve a.gguf b.gguf --mmproj p.gguf", "--mmproj names a file of one model, and 2 are given."),
    ("serve .", ". has no model: no file in it ends in .gguf"),
    ("serve a.gguf --port 1 --port 2", "--port is given twice, and takes one value."),
    ("serve a.gguf -f x.toml -f x.toml", "--config is given twice, and takes one value."),
    ("quantize a -o b --readme --no-readme", "--readme is given twice, and takes one value."),
    (
        "serve a.gguf --ctx -5",
        '--ctx must be a whole number from 1 to 2147483647, or one such as "8k" (8 × 1024) or "1M", or "auto", not -5.',
    ),
    ("serve a.gguf --ctx many", 'or one such as "8k" (8 × 1024) or "1M", or "auto", not \'many\'.'),
    ("serve a.gguf --port 99999", "--port must be a whole number from 0 to 65535, not 99999."),
    ("serve models.toml --port 99999", "--port must be a whole number from 0 to 65535, not 99999."),
    ("serve models.toml --host ''", "--host must be"),
    ("serve a.gguf --max-seqs 0", "--max-seqs must be a whole number from 1 to 256, not 0."),
    ("serve a.gguf --kind x", "--kind must be one of"),
    ("serve a.gguf --quant 7", "--quant '7' is not a known quantisation."),
    ("serve a.gguf --quant 4 --isq q4k", "--quant and --isq exclude each other."),
    (
        "serve a.gguf --cpu -n 3",
        "--device-layers gives layers to an accelerator, and --cpu keeps all models on the CPU.",
    ),
    ("serve a.gguf -n 0:x", "such as '0:20;1:12', not '0:x'. 'modelyard doctor' lists the devices."),
    ("serve a.gguf --format plain", "--format plain is full precision in safetensors, and 'a.gguf' is GGUF."),
    ("serve a.gguf --mmproj x.bin", "--mmproj 'x.bin' must be a GGUF file"),
    ("serve a.gguf --chat-template no.jinja", "no.jinja' does not exist."),
    ("serve org/name:q4 --isq 4", "--isq and the tag 'q4' in the model exclude each other."),
    ("serve a.gguf --ctx", "--ctx needs a value."),
    ("run a.gguf --think=high", "--think takes no value. Write --think or --no-think, and --reasoning-effort high"),
    ("ps --json=true", "--json takes no value. Write --json."),
    ("run a.gguf --format json", "For answers in JSON, write --schema FILE, or /set format json in a chat."),
    ("run a.gguf --nowordwrap", "Leave it out: answers are wrapped on a terminal"),
    ("show a --modelfile", "Leave it out: show has all that the server tells of a model"),
    ("-v", "Did you mean '-V'?"),
    ("serve a.gguf --ctxx 5", "--ctxx is not an option of serve. Did you mean '--ctx'?"),
    ("--ctx 5 serve a.gguf", "--ctx is not an option of modelyard itself; options of a command follow its name."),
    ("quantize a", "--out is missing."),
    ("quantize a -o b --format x", "--format must be gguf or uqff, not 'x'."),
    ("sever", "'sever' is not a command. Did you mean 'serve'?"),
    ("SERVE", "'SERVE' is not a command. Did you mean 'serve'?"),
    ("smol.gguf", "'smol.gguf' is not a command. To serve it, write: modelyard serve smol.gguf"),
    ("delete x", "'delete' is not a command. Write: modelyard rm MODEL."),
    ("cache lst", "'lst' is not a command. Did you mean 'list'?"),
    ("help srve", "'srve' is not a command. Did you mean 'serve'?"),
    ("serve a.gguf -ngl 99", "-ngl is not an option of serve. Layers on an accelerator are --device-layers"),
    ("serve -hf org/name", "Name the repository as the model, with the quantisation as its tag: org/name:Q4_K_M."),
    ("serve a.gguf -c 4096", "-c is --chat-template here. The context length is --ctx: --ctx 4096."),
    ("run a.gguf -p hi", "-p is not an option of run. Write the question behind the model, or as --input TEXT."),
    ("run a.gguf --temp 0", "--temp is not an option of run. Write --temperature NUMBER."),
    ("run a.gguf -n 5 -no-cnv", "-no-cnv is not an option of run. Leave it out: modelyard run MODEL is a chat"),
    ("load a --gpu max", "unset, all of them are there. --device-layers is an option of modelyard serve."),
    ("unload --all", "--all is not an option of unload. Name the models. modelyard ps shows those that are loaded"),
    ("server stop", "started with modelyard serve MODEL, ended with modelyard stop, and shown by modelyard ps."),
    ("serve a.gguf --ctx-size=4096", "--ctx-size is not an option of serve. The context length is --ctx."),
]


@pytest.mark.parametrize(("line", "said"), REFUSALS, ids=[line for line, _ in REFUSALS])
def test_a_wrong_command_line_is_refused_in_its_own_words(line: str, said: str, served: list[Config]) -> None:
    code, output = modelyard(*shlex.split(line))
    assert code == USAGE
    assert output.startswith("error: ")
    assert said in output
    assert served == []


def test_the_value_of_an_option_is_no_option_of_another_tool(tmp_path: Path) -> None:
    code, said = modelyard("run", "--local", "-m", "no.gguf", "-i", "-ngl")
    assert code == MODEL, said


def test_what_names_nothing_in_run_may_have_been_the_model_of_a_server_that_does_not_run() -> None:
    code, said = modelyard("run", "small", "hi")
    assert (
        code,
        "No running server has a model 'small', and as a model of this machine: 'small' is neither" in said,
    ) == (
        MODEL,
        True,
    )


def test_the_one_model_that_run_cannot_load_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_text("no model")
    code, said = modelyard("run", "bad.gguf", "hi", "--local")
    assert code == MODEL
    assert said.startswith(f"error: {tmp_path}/bad.gguf: This is not a GGUF file")


def test_the_same_mistake_has_the_same_code_in_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert modelyard("from-config", "no.toml")[0] == modelyard("serve", "no.toml")[0] == CONFIGURATION
    assert modelyard("doctor", "no.toml")[0] == modelyard("resolve", "no.toml")[0] == CONFIGURATION

    def in_use(*_: Any, **__: Any) -> None:
        raise PortUnavailable("127.0.0.1", 1234, "address already in use")

    monkeypatch.setattr(hosting, "host_server", in_use)
    assert modelyard("serve", "a.gguf")[0] == PORT


# --- help


ROOT = Path(__file__).resolve().parents[3]


def documented() -> list[str]:
    """The command lines in blocks of the documents, without what follows a pipe or a comment."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [match[1] for line in lines if (match := re.match(r"(?:\.venv/bin/)?(modelyard [^|>&]*)", line))]


def parsed(line: str) -> None:
    """Parse a command line, as if it were run."""
    words = shlex.split(line, comments=True)
    context: Any = typer.main.get_command(app)
    program, *args = words
    assert program == "modelyard"
    group = context.make_context(program, list(args))
    name, command, rest = context.resolve_command(group, [*group._protected_args, *group.args])
    inner = command.make_context(name, rest, parent=group)
    if hasattr(command, "commands"):
        name, command, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
        command.make_context(name, rest, parent=inner)


def test_every_command_has_examples_and_they_can_be_typed() -> None:
    for command in COMMANDS:
        assert command.group in GROUPS
        assert command.examples, command.name
        for example in command.examples:
            assert example.startswith(f"modelyard {command.name}")
            parsed(example)


def test_every_command_line_of_the_documents_can_be_typed() -> None:
    lines = documented()
    assert len(lines) > 20
    for line in lines:
        if not re.search(r"--(version|help|install-completion)\b", line):
            parsed(line)


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_help_fits_the_terminal(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = CliRunner().invoke(app, [name, "-h"])
    assert done.exit_code == OK
    prose, _, examples = done.output.partition("Examples:")
    assert all(len(line) <= width for line in prose.splitlines())
    assert "<bool>" not in prose
    assert f"  modelyard {BY_NAME[name].name}" in examples


def test_help_is_asked_for_in_three_ways() -> None:
    assert modelyard("version", "-h") == modelyard("version", "--help") == modelyard("help", "version")


def test_the_help_of_all_commands_is_shown_without_any_and_lists_each_in_its_group() -> None:
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == OK
    assert shown.output == CliRunner().invoke(app, ["help"]).output == CliRunner().invoke(app, ["-h"]).output
    for command in COMMANDS:
        _, _, rest = shown.output.partition(f"{command.group}:")
        assert f"  {command.name} " in rest


def test_the_version_is_printed_in_three_ways() -> None:
    code, said = modelyard("version")
    assert (code, said) == modelyard("--version") == modelyard("-V")
    assert re.fullmatch(r"modelyard \d+\.\d+\.\d+ ", said)


def test_the_exit_codes_are_explained() -> None:
    _, said = modelyard("help", "exit-codes")
    assert all(f"{code} {meaning}" in said for code, meaning in MEANINGS.items())


def test_hints_for_other_tools_name_what_there_is() -> None:
    by_command = [answer for answers in foreign.OPTIONS_OF.values() for answer in answers.values()]
    text = " ".join((*foreign.COMMANDS.values(), *foreign.OPTIONS.values(), *by_command, *_KEYS.values()))
    for key, table in re.findall(r"(\w+) under \[+([\w.]+)\]+", text):
        path = tuple(table.split("."))
        assert key in TABLES[path].model_fields, (key, table)
    assert set(_KEYS) == {field.name for field in fields(ModelOptions)}


def test_completion_offers_commands_without_importing_them() -> None:
    root: Any = typer.main.get_command(app)
    context = root.context_class(root, info_name="modelyard")
    assert [item.value for item in root.shell_complete(context, "re")] == [
        command.name for command in COMMANDS if command.name.startswith("re")
    ]


@pytest.mark.parametrize(
    "line",
    [
        "run x.gguf hi --image ~no-such-user/x.png",
        "run x.gguf hi --schema ~no-such-user/x.json",
        "run x.gguf hi --schema deep.json",
        f"run x.gguf hi --logit-bias {'[' * 5000}",
        "init ~no-such-user/models",
        f"init {'x' * 5000}",
    ],
    ids=lambda line: line[:40],
)
def test_paths_that_no_file_can_have_and_json_that_nests_too_deep_are_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep.json").write_text("[" * 5000)
    code, _ = modelyard(*line.split())
    assert code in (FAILURE, USAGE)


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    for line in (["resolve", "./a\x1b[31m.gguf"], ["\x1b]0;title\x07"], ["serve", "x.gguf", "--\x9b31m"]):
        done = CliRunner().invoke(app, line)
        assert done.exit_code in (MODEL, USAGE)
        assert all(char.isprintable() or char == "\n" for char in done.output)


def test_text_that_is_not_utf_8_is_refused_before_a_model_is_loaded() -> None:
    for line in ("run x.gguf caf\udce9", "run x.gguf hi --system \udcff", "serve \udce9.gguf"):
        code, said = modelyard(*line.split())
        assert code == USAGE
        assert "is not UTF-8" in said


def test_a_full_disk_is_an_error_and_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        FAILURE,
        "error: The output cannot be written: No space left on device.\n",
    )
