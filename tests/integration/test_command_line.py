"""The command as a user runs it: a process of its own, judged by what it prints and its exit code."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from support.images import encoded, noise
from support.sounds import audio_file, chirp

COMMAND = [sys.executable, "-m", "modelyard"]
WAIT_S = 60.0
# llama.cpp's abort and a segmentation fault end a process by signal.
CLEAN_CODES = (0, 1, 2)


def modelyard(*args: str, text: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *args], input=text, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert "Traceback" not in done.stderr
    return done


@contextlib.contextmanager
def started(*args: str, command: Sequence[str] = COMMAND) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server without a supervisor that has said that it serves, and what it said so far."""
    full = [*command, *args, "--no-supervisor"]
    with subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            greeting = ""
            for line in process.stdout:
                greeting += line
                if "Ctrl-C stops it" in line:
                    break
            yield process, greeting
        finally:
            process.kill()


@pytest.fixture(scope="module")
def smol(weights: dict[str, Path]) -> str:
    return str(weights["smollm2"])


def test_version_and_help_read_well() -> None:
    assert re.fullmatch(r"modelyard \d+\.\d+\.\d+\n", modelyard("--version").stdout)
    shown = modelyard("--help").stdout
    assert all(command in shown for command in ("serve", "from-config", "run"))
    options = modelyard("serve", "--help").stdout
    shown_options = ("--model", "--host", "--port", "--cpu", "--max-seqs", "--ctx", "--no-supervisor")
    assert all(option in options for option in shown_options)


def test_serve_prints_a_curl_line_that_works_as_pasted_and_ctrl_c_ends_with_0(smol: str) -> None:
    with started("serve", "-m", smol, "--port", "0", "--ctx", "256", "--max-seqs", "2", "--cpu") as (process, said):
        curl = next(line for line in said.splitlines() if line.startswith("curl "))
        assert "smollm2-135m-instruct-q4_1" in said
        answer = subprocess.run(shlex.split(curl), capture_output=True, timeout=WAIT_S, check=True).stdout
        assert b'"role":"assistant"' in answer
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0


def test_ctrl_c_while_a_stream_runs_lets_it_end_and_exits_with_0(smol: str) -> None:
    with started("serve", "-m", smol, "--port", "0") as (process, said):
        url = re.search(r"http://\S+/v1", said)
        assert url
        body = {"prompt": "A story:", "max_tokens": 60, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{url[0]}/completions", json=body, timeout=WAIT_S) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(WAIT_S) == 0


def test_a_second_signal_ends_what_still_runs_at_once_and_an_observer_holds_up_nothing(smol: str) -> None:
    with started("serve", "-m", smol, "--port", "0") as (process, said):
        url = re.search(r"http://\S+/v1", said)
        assert url
        body = {"prompt": "A story:", "max_tokens": 100_000, "ignore_eos": True, "stream": True}
        with (
            httpx.stream("GET", f"{url[0]}/models/events", timeout=WAIT_S) as events,
            httpx.stream("POST", f"{url[0]}/completions", json=body, timeout=WAIT_S) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            # The observer is sent away by the first signal.
            assert b"loaded" in b"".join(events.iter_bytes())
            process.send_signal(signal.SIGTERM)
            assert '"shutting_down"' in [line for line in lines if line][-1]
        assert process.wait(WAIT_S) == 130
        assert process.stdout is not None
        assert "1 answer is running (model " in process.stdout.read()


def test_from_config_serves_all_models_of_the_file(weights: dict[str, Path], tmp_path: Path) -> None:
    for path in weights.values():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "models.toml").write_text(
        'default_model_id = "small"\n[server]\nport = 0\n'
        f'[[models]]\nmodel_id = "{weights["smollm2"].name}"\nalias = "small"\n'
        f'[[models]]\nmodel_id = "{weights["gemma3"].name}"\nload = "on-demand"\n'
    )
    with started("from-config", "-f", str(tmp_path / "models.toml")) as (_, said):
        url = re.search(r"http://\S+/v1", said)
        assert url
        small, gemma = httpx.get(f"{url[0]}/models", timeout=WAIT_S).json()["data"]
        assert (small["id"], small["status"], small["default"]) == ("small", "loaded", True)
        assert (gemma["id"], gemma["status"]) == (weights["gemma3"].stem, "unloaded")
        chat = {"model": gemma["id"], "messages": "Hi"}
        refused = httpx.post(f"{url[0]}/chat/completions", json=chat, timeout=WAIT_S)
        assert refused.json()["error"]["code"] == "unsupported_operation"
        assert "chat_template" in refused.json()["error"]["message"]


def test_a_server_that_the_network_reaches_warns_where_it_has_no_keys(smol: str, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    model = f'[[models]]\nmodel_id = "{smol}"\nload = "on-demand"\n'
    warning = "WARNING Any client that reaches this machine can use the models"
    for server, warns in (('host = "0.0.0.0"', True), ('host = "0.0.0.0"\napi_keys = ["k"]', False), ("", False)):
        file.write_text(f"[server]\nport = 0\n{server}\n{model}")
        with started("from-config", "-f", str(file)) as (_, said):
            assert (warning in said) is warns


def test_the_log_is_json_where_it_is_asked_for_and_shows_no_secret(smol: str, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(
        '[server]\nport = 0\naccess_log_format = "json"\n[[server.keys]]\nname = "alice"\nkey = "sk-secret"\n'
        f'[[models]]\nmodel_id = "{smol}"\nalias = "smol"\ndevice.max_seq_len = 256\n'
    )
    with started("from-config", "-f", str(file)) as (process, said):
        url = re.search(r"http://\S+/v1", said)
        assert url
        headers = {"authorization": "Bearer sk-secret"}
        body = {"prompt": "zanzibar", "max_tokens": 2, "ignore_eos": True}
        for path in ("completions", "completions?key=sk-secret", "sk-secret"):
            httpx.post(f"{url[0]}/{path}", json=body, headers=headers, timeout=WAIT_S)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
    assert "sk-secret" not in said + rest
    assert "zanzibar" not in said + rest
    lines = [json.loads(line) for line in rest.splitlines() if line.startswith("{")]
    assert [(line["route"], line["status"], line["key"]) for line in lines] == [
        ("/v1/completions", 200, "alice"),
        ("/v1/completions", 200, "alice"),
        ("unknown", 404, "alice"),
    ]
    assert lines[0]["completion_tokens"] == 2


TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
write = lambda span: f"SPAN {span.context.trace_id:032x} {span.kind.name} {span.name}\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=write)))
trace.set_tracer_provider(provider)

from modelyard.__main__ import main
main()
"""


def test_a_request_is_part_of_its_clients_trace_where_a_provider_is_there(smol: str) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    command = [sys.executable, "-c", TRACED]
    with started("serve", "-m", smol, "--port", "0", "--ctx", "256", command=command) as (process, said):
        url = re.search(r"http://\S+/v1", said)
        assert url
        headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        body = {"prompt": "Once", "max_tokens": 2, "ignore_eos": True, "stream": True}
        assert httpx.post(f"{url[0]}/completions", json=body, headers=headers, timeout=WAIT_S).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        spans = re.findall(rf"SPAN {trace_id} (\w+) (.*)", process.stdout.read())
    assert ("SERVER", "POST /v1/completions") in spans
    assert [name for kind, name in spans if name in ("queue", "load", "prefill", "decode")] == [
        *("queue", "load", "prefill", "decode"),
    ]


def test_run_answers_one_question_and_exits(smol: str) -> None:
    done = modelyard("run", "-m", smol, "--ctx", "256", "-i", "What is the capital of France? Answer with one word.")
    assert done.returncode == 0
    # Drawn at random: what it says is not always right.
    assert done.stdout.strip()


def test_run_adds_standard_input_to_the_question_and_prints_one_object(smol: str) -> None:
    options = ("--ctx", "256", "--max-tokens", "4", "--json", "--verbose")
    done = modelyard("run", smol, "Summarise:", *options, text="The sea is wide.\n")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert (answer["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 4)
    # The question alone has fewer tokens.
    assert answer["usage"]["prompt_tokens"] > 36
    assert "tokens/s" in done.stderr


@pytest.mark.parametrize("question", [(), ("-i", "Hello!")])
def test_run_has_nothing_to_say_to_an_embedding_model(minilm: Path, question: tuple[str, ...]) -> None:
    done = modelyard("run", "-m", str(minilm), *question, text="Hello!\n")
    assert done.returncode == 1
    assert "is an embedding model, served at /v1/embeddings: it generates no text" in " ".join(done.stderr.split())
    assert done.stdout == ""


@pytest.mark.long
def test_run_answers_a_question_about_images(vision_models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encoded(noise(1)))
    (tmp_path / "two.png").write_bytes(encoded(noise(2)))

    def ask(*images: str) -> str:
        options = [part for image in images for part in ("--image", str(tmp_path / image))]
        asked = ("-m", str(vision_models["gemma3"]), "--ctx", "80", "-i", "What is it?", *options)
        done = modelyard("run", *asked)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert len({ask("one.png"), ask("two.png")}) == 2
    refused = modelyard("run", "-m", str(vision_models["gemma3"]), "-i", "What?", "--image", str(tmp_path / "no.png"))
    assert refused.returncode != 0
    assert "no.png: The image cannot be read: No such file or directory. Check its name." in refused.stderr
    alone = modelyard("run", "-m", str(vision_models["gemma3"]), "--image", str(tmp_path / "one.png"))
    assert alone.returncode == 2
    assert "There is no question" in alone.stderr


@pytest.mark.long
def test_run_answers_a_question_about_sound(hearing_models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "one.wav").write_bytes(audio_file(chirp(1, 1)))
    (tmp_path / "two.flac").write_bytes(audio_file(chirp(1, 2, 44_100), 44_100, "FLAC"))
    ears = ("run", "-m", str(hearing_models["ears"]), "--ctx", "1024")

    def ask(sound: str) -> str:
        done = modelyard(*ears, "-i", "What?", "--audio", str(tmp_path / sound))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert ask("one.wav")
    assert ask("two.flac")
    refused = modelyard(*ears, "-i", "What?", "--audio", str(tmp_path / "no.wav"))
    assert refused.returncode == 1
    assert "no.wav: The audio cannot be read: No such file or directory. Check its name." in refused.stderr
    alone = modelyard(*ears, "--audio", str(tmp_path / "one.wav"))
    assert alone.returncode == 2
    assert "There is no question" in alone.stderr


def test_from_config_with_command_run_chats_with_the_first_model_where_none_is_the_default(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'command = "run"\n'
        f'[[models]]\nmodel_id = "{weights["smollm2"]}"\ndevice.max_seq_len = 128\nsampling.temperature = 0.0\n'
        f'[[models]]\nmodel_id = "{weights["gemma3"]}"\nload = "on-demand"\n'
    )
    question = "What is the capital of France? Answer with one word.\n"
    done = modelyard("from-config", "-f", str(file), text=question)
    assert done.returncode == 0
    assert "Paris" in done.stdout


def test_a_port_in_use_is_said_before_anything_is_loaded(smol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = modelyard("serve", "-m", smol, "--port", port)
    assert done.returncode == 6
    assert f"Cannot listen on 127.0.0.1:{port}: address already in use" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("serve", "-m", "./no/such.gguf"), 4, "does not exist"),
        (("serve", "-m", "org/not-in-the-cache"), 4, "org/not-in-the-cache"),
        (("run", "-m", "./no/such.gguf", "-i", "Hi"), 4, "does not exist"),
        (("from-config", "-f", "no.toml"), 3, "no.toml"),
        (("from-config", "-f", "/"), 3, ".toml"),
        (("fly",), 2, "fly"),
    ],
)
def test_a_failure_ends_with_a_clear_line_and_the_code_of_its_kind(args: tuple[str, ...], code: int, said: str) -> None:
    done = modelyard(*args)
    assert done.returncode == code
    assert said in re.sub(r"\s+", " ", done.stderr)
    assert done.stdout == ""


def test_all_problems_of_a_config_file_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        'default_model = "a"\n[server]\nport = "x"\n[[models]]\nmodel_id = "a"\n[models.quantization]\nisqq="4"'
    )
    done = modelyard("from-config", "-f", str(file))
    assert done.returncode == 3
    said = re.sub(r"\s+", " ", done.stderr)
    assert "3 problems" in said
    assert "default_model_id" in said
    assert "Did you mean 'isq'?" in said


@pytest.mark.parametrize("kind", ["truncated", "header only", "not GGUF", "empty", "folder", "corrupt metadata"])
def test_a_broken_model_ends_with_a_clear_line_and_never_by_signal(smol: str, tmp_path: Path, kind: str) -> None:
    whole = Path(smol).read_bytes()
    path = tmp_path / "broken.gguf"
    match kind:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "header only":
            path.write_bytes(whole[:24])
        case "not GGUF":
            path.write_bytes(b"PK\x03\x04" + bytes(1000))
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "corrupt metadata":
            path.write_bytes(whole[:300] + b"\xff" * 64 + whole[364:])
    done = modelyard("serve", "-m", str(path), "--port", "0")
    assert done.returncode == (2 if kind == "folder" else 4)
    assert done.stderr.startswith("error: ")
    assert "broken.gguf" in done.stderr


def test_a_broken_model_in_a_running_server_is_a_clear_503_without_the_way_to_it(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "secret-folder" / "broken.gguf"
    broken.parent.mkdir()
    broken.write_bytes(weights["smollm2"].read_bytes()[:1_000_000])
    (tmp_path / "models.toml").write_text(
        "[server]\nport = 0\n"
        f'[[models]]\nmodel_id = "{weights["smollm2"]}"\nalias = "good"\n'
        f'[[models]]\nmodel_id = "{broken}"\nalias = "bad"\nload = "on-demand"\n'
    )
    with started("from-config", "-f", str(tmp_path / "models.toml")) as (process, said):
        url = re.search(r"http://\S+/v1", said)
        assert url
        answer = httpx.post(f"{url[0]}/completions", json={"model": "bad", "prompt": "Hi"}, timeout=WAIT_S)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "model_load_failed")
        assert "cut off" in error["message"]
        assert "secret-folder" not in answer.text
        good = {"model": "good", "prompt": "Hi", "max_tokens": 1}
        assert httpx.post(f"{url[0]}/completions", json=good, timeout=WAIT_S).status_code == 200
        assert process.poll() is None
