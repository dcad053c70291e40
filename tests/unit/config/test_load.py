"""Files that load, files that do not, and all their problems at once."""

import os

import pytest

from modelyard.config import default_model, load_config, validate_config
from modelyard.config.tables import TABLES
from modelyard.errors import ConfigError

GUIDE = """\
command = "serve"
default_model_id = "Qwen/Qwen3-4B"

[server]
host = "0.0.0.0"
port = 1234

[[models]]
model_id = "Qwen/Qwen3-4B"

[models.quantization]
quant = "4"

[[models]]
model_id = "google/gemma-4-E4B-it"

[models.quantization]
quant = "4"
"""


@pytest.fixture
def write(tmp_path):
    def write(content, name="models.toml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def failure(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.source == str(path)
    assert caught.value.__context__ is None
    return caught.value


def problem(path):
    (problem,) = failure(path).problems
    return str(problem)


def test_the_file_of_the_guide_loads(write):
    config = load_config(write(GUIDE))
    assert config.command == "serve"
    assert (config.server.host, config.server.port) == ("0.0.0.0", 1234)
    assert [model.id for model in config.models] == ["Qwen/Qwen3-4B", "google/gemma-4-E4B-it"]
    assert [model.source for model in config.models] == ["Qwen/Qwen3-4B", "google/gemma-4-E4B-it"]
    assert [model.quantization.quant for model in config.models] == ["4", "4"]
    assert [model.kind for model in config.models] == ["auto", "auto"]
    assert default_model(config) == "Qwen/Qwen3-4B"


def test_every_key_reaches_the_configuration(write):
    write("{{ messages }}", "chat.jinja")
    write('{"mcpServers": {}}', "mcp.json")
    config = load_config(
        write("""
            command = "run"
            default_model_id = "g"
            memory.budget = "16GiB"
            memory.kv_keep = "disk"
            memory.kv_keep_bytes = "2GB"
            memory.kv_dir = "kept"
            memory.devices.CUDA0 = 0.5
            [server]
            host = "::1"
            port = 0
            mcp_port = 4321
            max_tool_rounds = 5
            api_keys = ["sk-1", "sk-2"]
            image_folders = ["pictures"]
            allow_private_image_urls = true
            audio_folders = ["sounds"]
            allow_private_audio_urls = true
            allowed_hosts = ["models.lan"]
            cors_origins = ["https://chat.example"]
            trusted_proxies = ["10.0.0.0/8"]
            max_connections = 100
            max_connections_per_address = 20
            ssl_certfile = "server.pem"
            ssl_keyfile = "server.key"
            disable_access_log = true
            access_log_format = "json"
            access_log_health = true
            disable_request_id_header = true
            disable_metrics = true
            ui = false
            record_texts = true
            share_prefixes = "group"
            keep_responses = "memory"
            responses_dir = "responses"
            strict = true
            [[server.keys]]
            name = "alice"
            key = "sk-3"
            models = ["smol"]
            mcp = ["files"]
            scopes = ["read"]
            requests_per_minute = 60
            tokens_per_minute = 1000
            max_concurrent = 4
            max_priority = 5
            max_context = 4096
            max_tokens = 512
            group = "sales"
            [runtime]
            max_seqs = 8
            prefix_cache_n = 0
            prompt_lookup = false
            kv_type = "q8_0"
            flash_attn = true
            batch_tokens = 256
            trial = false
            isolation = "thread"
            mcp_config = "mcp.json"
            [mcp]
            tool_timeout = "1m"
            max_concurrent_calls = 3
            max_result = "1MiB"
            approval_timeout = "1h"
            allow_request_servers = ["*.example.org"]
            serve = true
            [[mcp.servers]]
            name = "files"
            command = "npx"
            args = ["-y", "server"]
            env = { TOKEN = "secret" }
            cwd = "~"
            enabled = false
            tool_prefix = "fs"
            tools = ["read"]
            exclude = ["write"]
            resources = ["file:///a"]
            approval = ["read"]
            timeout = 5
            max_concurrent_calls = 1
            [[models]]
            model_id = "org/gemma"
            kind = "multimodal"
            alias = "gemma"
            aliases = ["g"]
            chat_template = "chat.jinja"
            load = "on-demand"
            pinned = true
            priority = 5
            weight = 2.5
            isolation = "auto"
            draft = "smol"
            mcp = []
            system = "Be brief."
            tool_format = "hermes"
            reasoning_format = "think"
            dtype = "f16"
            quantization = { from_uqff = "q4k-0.uqff", imatrix = "smol.imatrix" }
            format = { format = "gguf", mmproj = "mmproj.gguf" }
            [models.device]
            cpu = true
            max_seq_len = 4096
            device_layers = 0
            max_batch_size = 4
            n_cpu_moe = 2
            tensor_overrides = ["exps=host"]
            kv_on_host = true
            mlock = true
            mmap = true
            [models.multimodal]
            max_num_images = 2
            max_edge = 1024
            max_image_length = 512
            max_num_audios = 1
            max_audio_seconds = 60
            [models.sampling]
            temperature = 1
            top_k = 40
            top_p = 0.9
            min_p = 0.05
            repetition_penalty = 1.1
            presence_penalty = -1
            frequency_penalty = 0.5
            seed = 7
            [[models.adapters]]
            name = "sql"
            path = "sql.gguf"
            scale = 0.5
            applied = true
            layers = [2, 9]
            alias = "gemma-sql"
            [[models]]
            model_id = "smol"
            device = { cpu = true }
            [hub]
            siblings = ["{repo}-GGUF"]
            token_source = "none"
            [discover]
            stores = ["ollama"]
            folders = ["models"]
            [cluster]
            min_nodes = 2
            max_nodes = 3
            target_queue = 2
            target_first_token = "2s"
            idle_seconds = "5m"
            start_seconds = "1m"
            placement = "pack"
            replicas = { smol = 2 }
            labels = { smol = { zone = "b" } }
            loads_per_hour = 10
            drain_seconds = "1m"
        """)
    )
    unset = {
        (*path, key)
        for path, schema in TABLES.items()
        for key in schema.model_fields
        if (*path, key) not in TABLES and getattr(_table(config, path), key) == schema.model_fields[key].default
    }
    # These exclude what is set.
    assert unset == {
        ("models", "idle_unload_seconds"),
        # Keys of models that other servers have, of which those above do not apply.
        ("models", "remote"),
        ("models", "remote_model"),
        ("models", "api_key_env"),
        ("models", "remote_timeout_seconds"),
        ("models", "device", "devices"),
        ("models", "device", "n_gpu_layers"),
        ("models", "device", "split_mode"),
        ("models", "device", "tensor_split"),
        ("models", "device", "main_gpu"),
        ("models", "quantization", "quant"),
        ("models", "quantization", "isq"),
        ("models", "format", "quantized_file"),
        ("server", "keys", "key_env"),
        # With mcp_port it cannot be false.
        ("mcp", "serve"),
        ("mcp", "servers", "url"),
        ("mcp", "servers", "transport"),
        ("mcp", "servers", "headers"),
        ("mcp", "servers", "bearer_token"),
    }


def _table(config, path):
    for key in path:
        config = getattr(config, key)[0] if key in ("models", "adapters", "keys", "servers") else getattr(config, key)
    return config


def test_the_extension_may_be_in_capitals(write):
    assert load_config(write(GUIDE, "MODELS.TOML")).models


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(write):
    assert load_config(write(b"\xef\xbb\xbf" + GUIDE.replace("\n", "\r\n").encode())).models


@pytest.mark.parametrize("name", ["models.yaml", "models", "models.toml.bak"])
def test_a_file_of_another_extension_is_refused(write, name):
    assert problem(write(GUIDE, name)) == "A configuration file must end in .toml."


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    assert problem(tmp_path / "models.toml") == "There is no such file."


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "models.toml").mkdir()
    assert (
        problem(tmp_path / "models.toml") == "This is a folder, not a file. Name a configuration, which ends in .toml."
    )


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    path = tmp_path / "models.toml"
    path.symlink_to("models.toml")
    assert problem(path) == f"The file cannot be read: {os.strerror(40)}."


def test_a_file_that_is_not_utf8_says_where(write):
    path = write(b'command = "serve"\n# caf\xe9\n')
    assert problem(path) == "The file is not UTF-8 text: bad byte in line 2. Save it as UTF-8."


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("[server]\nport = \n", (2, 8)),
        ("[server]\n[server]\n", (2, 1)),
        ('[server]\nhost = "', (2, 9)),
        ("[server]\nallowed_hosts = [\n\n  'a'\n[memory]\n", (2, 17)),
    ],
)
def test_bad_toml_says_line_and_column(write, text, position):
    (problem,) = failure(write(text)).problems
    assert problem.message.startswith("not valid TOML: ")
    assert (problem.line, problem.column) == position


def test_toml_that_python_cannot_hold_is_a_problem_of_the_file(write):
    for deep in (".".join("a" * 5000) + " = 1", "[" + ".".join("a" * 5000) + "]", "x = " + "[" * 100 + "]" * 100):
        assert problem(write(deep)) == "The file is not valid TOML: it nests too deep."
    assert problem(write("x = " + "[" * 100_000)) == "The file is not valid TOML: it nests too deep."
    assert problem(write("x = " + "1" * 5000)).startswith("The file is not valid TOML: ")


def test_bad_toml_shows_no_api_key(write):
    error = failure(write('[server]\napi_keys = ["sk-very-secret"\n[[models]]\n'))
    assert "sk-very-secret" not in str(error)


def test_all_problems_of_a_file_come_at_once(write):
    path = write("""
        default_model_id = "qwenn"
        colour = "blue"
        [server]
        port = "80a"
        [runtime]
        max_seqs = 250
        [[models]]
        model_id = "qwen"
        chat_template = "missing.jinja"
        quantization = { quant = "7" }
        device = { cpu = true, max_seq_len = -1 }
        [[models]]
        model_id = "qwen"
        kind = "txt"
        device = { cpu = false }
        [[models]]
        model_id = "default"
        quantization = { quant = "4", isq = "4" }
    """)
    error = failure(path)
    says = (
        (2, "default_model_id 'qwenn' is not"),
        (3, "unknown key 'colour'."),
        (5, "[server]: port must be"),
        (7, "[runtime]: max_seqs + prefix_cache_n may be"),
        (10, f"[[models]] 1 ('qwen'): chat_template '{path.parent / 'missing.jinja'}' does not exist."),
        (11, "[models.quantization] of model 1 ('qwen'): quant '7' is not"),
        (12, "[models.device] of model 1 ('qwen'): max_seq_len must be"),
        (14, "The name 'qwen' belongs to more than one model: [[models]] 1 ('qwen') and [[models]] 2 ('qwen')."),
        (15, "[[models]] 2 ('qwen'): kind must be"),
        (16, "cpu must be the same"),
        (18, "[[models]] 3 ('default'): the name 'default' is reserved"),
        (19, "[models.quantization] of model 3 ('default'): quant and isq exclude each other."),
    )
    assert [problem.line for problem in error.problems] == [line for line, _ in says]
    for found, (_, beginning) in zip(error.problems, says, strict=True):
        assert str(found).startswith(beginning)
    assert str(error).startswith(f"{path}: 12 problems\n\n{path}:2:28: default_model_id 'qwenn' is not")


def test_a_configuration_without_models_is_refused(write):
    assert problem(write('command = "serve"')) == "No models: name at least one in a [[models]] table."


def test_a_chat_template_must_be_a_file(tmp_path):
    with pytest.raises(ConfigError, match=r"\[\[models\]\] 1 \('a'\): chat_template '.*' is not a file\."):
        validate_config({"models": [{"model_id": "a", "chat_template": "."}]}, base=tmp_path)


def test_the_models_after_a_faulty_one_keep_their_numbers():
    models = [5, {"alias": "x"}, {"model_id": "b", "quantization": {"isq": "9"}}]
    with pytest.raises(ConfigError) as caught:
        validate_config({"models": models})
    assert str(caught.value.problems[-1]).startswith("[models.quantization] of model 3 ('b'): isq '9' is not")


@pytest.mark.parametrize(
    ("mapping", "cause"),
    [
        ({"models": [{"model_id": "a", "alais": "b"}], "default_model_id": "b"}, "'alais'"),
        ({"models": [{"model_id": "a", "alias": ["b"]}], "default_model_id": "b"}, "alias must be"),
        ({"models": [{"model_id": ["b"]}], "default_model_id": "b"}, "model_id must be"),
        ({"models": ["b"], "default_model_id": "b"}, "[[models]] 1 must be"),
        ({"models": {"model_id": "b"}, "default_model_id": "b"}, "models must be"),
        ({"model": [{"model_id": "b"}], "default_model_id": "b"}, "'model'"),
        ({"models": [{"model_id": "a"}], "runtime": {"max_seqs": "1", "prefix_cache_n": 240}}, "max_seqs must be"),
    ],
)
def test_what_only_follows_from_another_problem_is_not_reported(mapping, cause):
    with pytest.raises(ConfigError) as caught:
        validate_config(mapping)
    (problem,) = caught.value.problems
    assert cause in str(problem)


def test_a_problem_that_hides_no_name_does_not_hide_an_unknown_default():
    with pytest.raises(ConfigError) as caught:
        validate_config({"models": [{"model_id": "a", "pinned": 1}], "default_model_id": "b"})
    assert len(caught.value.problems) == 2


def test_a_problem_that_hides_no_name_does_not_hide_an_unknown_draft():
    with pytest.raises(ConfigError) as caught:
        validate_config({"models": [{"model_id": "a", "draft": "b"}, {"model_id": "c", "pinned": 1}]})
    assert len(caught.value.problems) == 2


def test_the_command_line_goes_through_the_same_checks():
    config = validate_config({"models": [{"model_id": "org/a"}], "server": {"port": 0}})
    assert default_model(config) == "org/a"
    with pytest.raises(ConfigError, match=r"^command line: \[server\]: port must be"):
        validate_config({"models": [{"model_id": "org/a"}], "server": {"port": 65536}})


def test_the_file_of_the_hubs_token_is_relative_to_the_configuration(write, tmp_path):
    config = load_config(write('[hub]\ntoken_source = "path:token"\n[[models]]\nmodel_id = "org/a"'))
    assert config.hub.token_source.get_secret_value() == f"path:{tmp_path / 'token'}"


def test_the_problems_of_a_file_are_one_line_for_a_log(write):
    path = write("colour = 1\n[x]\n[[models]]\nmodel_id = 'a.gguf'\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = caught.value.in_one_line
    assert line.startswith(f"{path}:1:1: unknown key 'colour'.")
    assert f" {path}:2:2: unknown table [x]." in line
    assert "\n" not in line
    assert "|" not in line
