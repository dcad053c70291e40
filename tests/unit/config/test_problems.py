"""Everything that can be wrong with a key, in the words that the user reads."""

import datetime

import pytest

from modelyard.config import Server, validate_config
from modelyard.errors import ConfigError

SMOL = {"model_id": "smol"}
SERVER_KEYS = ", ".join(Server.model_fields)


def problems(mapping):
    with pytest.raises(ConfigError) as caught:
        validate_config(mapping)
    return [str(problem) for problem in caught.value.problems]


def problem_of(key, value, table=None):
    """The one problem of a configuration whose top level, or first model, or table, has this key."""
    match table:
        case None:
            mapping = {"models": [SMOL], key: value}
        case "server" | "runtime":
            mapping = {"models": [SMOL], table: {key: value}}
        case "models":
            mapping = {"models": [SMOL | {key: value}]}
        case _:
            mapping = {"models": [SMOL | {table: {key: value}}]}
    (problem,) = problems(mapping)
    return problem


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        (None, "command", "srve", """command must be one of "serve", "run", not 'srve'. Did you mean 'serve'?"""),
        (None, "default_model_id", "", "default_model_id must be non-empty text in quotes, not ''."),
        ("server", "port", "80a", "[server]: port must be a whole number from 0 to 65535, not '80a'."),
        ("server", "port", 65536, "[server]: port must be a whole number from 0 to 65535, not 65536."),
        ("server", "port", -1, "[server]: port must be a whole number from 0 to 65535, not -1."),
        ("server", "port", True, "[server]: port must be a whole number from 0 to 65535, not true."),
        ("server", "port", 80.0, "[server]: port must be a whole number from 0 to 65535, not 80.0."),
        ("server", "host", "  ", "[server]: host must be non-empty text in quotes, not '  '."),
        ("server", "host", {}, "[server]: host must be non-empty text in quotes, not a table."),
        ("runtime", "max_seqs", 0, "[runtime]: max_seqs must be a whole number from 1 to 256, not 0."),
        ("runtime", "max_seqs", 257, "[runtime]: max_seqs must be a whole number from 1 to 256, not 257."),
        ("runtime", "prefix_cache_n", -1, "[runtime]: prefix_cache_n must be a whole number of at least 0, not -1."),
        (
            "models",
            "kind",
            "txt",
            """[[models]] 1 ('smol'): kind must be one of "auto", "text", "embedding", "rerank", "multimodal", """
            """"diffusion", "speech", not 'txt'. Did you mean 'text'?""",
        ),
        (
            "models",
            "load",
            [],
            """[[models]] 1 ('smol'): load must be one of "startup", "on-demand", not a list.""",
        ),
        ("models", "alias", "", "[[models]] 1 ('smol'): alias must be non-empty text in quotes, not ''."),
        (
            "models",
            "aliases",
            "a",
            "[[models]] 1 ('smol'): aliases must be a list, each item non-empty text in quotes, not 'a'.",
        ),
        (
            "models",
            "aliases",
            ["a", 4],
            """[[models]] 1 ('smol'): aliases: item 2 must be non-empty text in quotes: write "4", not 4.""",
        ),
        (
            "models",
            "aliases",
            {"a"},
            "[[models]] 1 ('smol'): aliases must be a list, each item non-empty text in quotes, not a set.",
        ),
        ("models", "pinned", "yes", "[[models]] 1 ('smol'): pinned must be true or false, not 'yes'."),
        ("models", "pinned", None, "[[models]] 1 ('smol'): pinned must be true or false, not nothing."),
        (
            "models",
            "chat_template",
            False,
            "[[models]] 1 ('smol'): chat_template must be a path in quotes, not false.",
        ),
        (
            "quantization",
            "quant",
            4,
            "[models.quantization] of model 1 ('smol'): quant must be non-empty text in quotes: write \"4\", not 4.",
        ),
        (
            "device",
            "max_seq_len",
            0,
            "[models.device] of model 1 ('smol'): max_seq_len must be a whole number from 1 to 2147483647, or one "
            'such as "8k" (8 × 1024) or "1M", or "auto", not 0.',
        ),
        (
            "device",
            "max_seq_len",
            10**30,
            "[models.device] of model 1 ('smol'): max_seq_len must be a whole number from 1 to 2147483647, or one "
            'such as "8k" (8 × 1024) or "1M", or "auto", not a number of more than 20 digits.',
        ),
        (
            "device",
            "cpu",
            datetime.date(2026, 1, 2),
            "[models.device] of model 1 ('smol'): cpu must be true or false, not 2026-01-02.",
        ),
        (
            "sampling",
            "top_p",
            0,
            "[models.sampling] of model 1 ('smol'): top_p must be a number above 0 and at most 1, not 0.",
        ),
        (
            "sampling",
            "temperature",
            float("nan"),
            "[models.sampling] of model 1 ('smol'): temperature must be a number from 0 to 100, not nan.",
        ),
        (
            "sampling",
            "temperature",
            float("inf"),
            "[models.sampling] of model 1 ('smol'): temperature must be a number from 0 to 100, not inf.",
        ),
    ],
)
def test_a_wrong_value_says_what_must_be_there_and_what_is(table, key, value, message):
    assert problem_of(key, value, table) == message


def test_a_number_too_large_for_python_to_print_is_a_problem_like_any_other():
    assert problem_of("port", 10**5000, "server").endswith("not a number of more than 20 digits.")
    assert "max_seqs + prefix_cache_n" in problem_of("prefix_cache_n", 10**5000, "runtime")


def test_a_long_value_is_shortened():
    problem = problem_of("kind", "x" * 1000, "models")
    assert f"not '{'x' * 59}…'." in problem


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        (None, "comand", "unknown key 'comand'. Did you mean 'command'?"),
        ("server", "prot", "[server]: unknown key 'prot'. Did you mean 'port'?"),
        ("runtime", "max_seq", "[runtime]: unknown key 'max_seq'. Did you mean 'max_seqs'?"),
        ("models", "alais", "[[models]] 1 ('smol'): unknown key 'alais'. Did you mean 'alias'?"),
        (
            "quantization",
            "isqq",
            "[models.quantization] of model 1 ('smol'): unknown key 'isqq'. Did you mean 'isq'?",
        ),
        ("device", "cpus", "[models.device] of model 1 ('smol'): unknown key 'cpus'. Did you mean 'cpu'?"),
        ("sampling", "topp", "[models.sampling] of model 1 ('smol'): unknown key 'topp'. Did you mean 'top_p'?"),
        ("server", "no_ui", f"[server]: unknown key 'no_ui'. Known here: {SERVER_KEYS}."),
    ],
)
def test_an_unknown_key_names_its_table_and_the_closest_key(table, key, message):
    assert problem_of(key, 1, table) == message


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        (None, "port", 80, "unknown key 'port'. It belongs in [server]."),
        ("models", "isq", "4", "[[models]] 1 ('smol'): unknown key 'isq'. It belongs in [models.quantization]."),
        (
            "device",
            "kind",
            "text",
            "[models.device] of model 1 ('smol'): unknown key 'kind'. It belongs in [[models]].",
        ),
        (
            "server",
            "default_model_id",
            "smol",
            "[server]: unknown key 'default_model_id'. It belongs at the top of the file, above the first [table].",
        ),
        (None, "quantization", {}, "unknown table [quantization]. Write [models.quantization]."),
        ("server", "models", [], "[server]: unknown key 'models'. Write [[models]]."),
    ],
)
def test_a_key_in_the_wrong_table_says_where_it_belongs(table, key, value, message):
    assert problem_of(key, value, table) == message


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        (
            None,
            "globl",
            "unknown table [globl]. Known here: command, default_model_id, server, runtime, memory, hub, discover, "
            "mcp, cluster, models.",
        ),
        ("models", "devices", "[[models]] 1 ('smol'): unknown table [models.devices]. Did you mean 'device'?"),
    ],
)
def test_an_unknown_table_is_named_as_one(table, key, message):
    assert problem_of(key, {}, table) == message


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"models": [SMOL], "server": 5}, "server must be one table, written [server]."),
        ({"models": [SMOL], "server": [{}]}, "server must be one table, written [server]."),
        (
            {"models": [SMOL | {"device": "cpu"}]},
            "[[models]] 1 ('smol'): device must be one table, written [models.device].",
        ),
        (
            {"models": {"model_id": "smol"}},
            "models must be a list of tables: open each with [[models]], in double brackets.",
        ),
        ({"models": [SMOL, "gemma"]}, "[[models]] 2 must be a table."),
        ({"models": [SMOL, {"alias": "g"}]}, "[[models]] 2: model_id is missing."),
        (
            {"models": ({"model_id": 4},)},
            """[[models]] 1: model_id must be non-empty text in quotes: write "4", not 4.""",
        ),
    ],
)
def test_a_table_of_the_wrong_shape_says_how_to_write_it(mapping, message):
    assert problems(mapping) == [message]


def test_a_key_that_is_no_text_is_unknown():
    assert problems({"models": [SMOL], "server": {1: 2}}) == [f"[server]: unknown key '1'. Known here: {SERVER_KEYS}."]


@pytest.mark.parametrize(
    "server",
    [
        {"api_keys": "sk-very-secret"},
        {"api_keys": ["sk-very-secret", ""]},
        {"api_keys": ["sk-very-secret", 4]},
        {"api_keys": [["sk-very-secret"]]},
        {"api_keys": {"sk-very-secret": 1, "first": "sk-very-secret"}},
        {"api_key": "sk-very-secret"},
        [{"api_keys": ["sk-very-secret"]}],
        "sk-very-secret",
    ],
)
def test_api_keys_are_in_no_error(server):
    with pytest.raises(ConfigError) as caught:
        validate_config({"models": [SMOL], "server": server, "api_keys": ["sk-very-secret"]})
    assert "sk-very-secret" not in str(caught.value)
    assert "sk-very-secret" not in repr(caught.value)
    # A chained error would be printed with the traceback, and carries the whole input.
    assert caught.value.__context__ is None
