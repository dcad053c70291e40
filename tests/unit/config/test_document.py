"""How the problems of a file are reported: in its text, in Python and over a pickle."""

import pickle

import pytest

from modelyard.config import load_config, located, missing_paths, validate_config
from modelyard.errors import MAX_SHOWN_PROBLEMS, ConfigError, ConfigProblem


def refused(tmp_path, text, name="models.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return caught.value


MODEL = "[[models]]\nmodel_id = 'org/a'\nalias = 'qwen'\n"


def test_an_error_shows_the_line_a_mark_and_what_to_do(tmp_path):
    error = refused(tmp_path, f"{MODEL}[models.device]\nmax_seq_len = 'x'\ncontxt = 8192\n")
    assert (
        str(error)
        == f"""\
{error.path}: 2 problems

{error.path}:5:15: models.qwen.device: max_seq_len must be a whole number from 1 to 2147483647, or one such as "8k" \
(8 × 1024) or "1M", or "auto", not 'x'.
  |
5 | max_seq_len = 'x'
  |               ^^^

{error.path}:6:1: models.qwen.device: unknown key 'contxt'.
  |
6 | contxt = 8192
  | ^^^^^^
  = help: Write max_seq_len."""
    )


def test_a_problem_has_its_parts_in_python_and_survives_a_pickle(tmp_path):
    error = refused(tmp_path, f"{MODEL}colour = 3\n")
    assert error.path == tmp_path / "models.toml"
    (problem,) = error.problems
    assert (problem.line, problem.column, problem.key) == (4, 1, "models.qwen.colour")
    assert problem.message == "unknown key 'colour'."
    assert problem.hint.startswith("Known here: ")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.problems, copy.path, str(copy)) == (error.problems, error.path, str(error))


def test_a_rule_over_several_keys_marks_one_and_names_the_lines_of_the_others(tmp_path):
    error = refused(tmp_path, f"{MODEL}[[models]]\nmodel_id = 'org/b'\nalias = 'qwen'\n")
    (problem,) = error.problems
    assert problem.line == 6
    assert "note: compare line 3" in str(error)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[models]]\nalias = 'a'\n", (1, 1)),
        ("default_model_id = 'a'\nmodels = [{ alias = 'a' }]\n", (2, 11)),
        (f"server = 5\n{MODEL}", (1, 10)),
        (f"{MODEL}device.cpu = 'x'\n", (4, 14)),
        (f"{MODEL}aliases = [\n  'x',\n  5,\n]\n", (6, 3)),
        (f"[runtime]\nprefix_cache_n = 250\n{MODEL}", (2, 18)),
        (f"[runtime]\nmax_seqs = 250\n{MODEL}", (2, 12)),
        (f"\ufeff[server]\r\nport = 'x'\r\n{MODEL}", (2, 8)),
    ],
)
def test_a_problem_is_where_its_value_is(tmp_path, text, place):
    (problem,) = refused(tmp_path, text).problems
    assert (problem.line, problem.column) == place


def test_a_mistake_in_the_syntax_hides_no_other_problem(tmp_path):
    error = refused(tmp_path, f"default_model_id = 'qwn'\n[server]\nport = 99999\nhost = here\n{MODEL}colour = x y\n")
    assert [(problem.line, problem.column) for problem in error.problems] == [(1, 20), (3, 8), (4, 8), (8, 1), (8, 10)]


def test_what_a_line_with_a_mistake_may_hold_is_not_reported_as_missing(tmp_path):
    error = refused(tmp_path, "default_model_id = 'qwen'\n[[models]]\nmodel_id = 'org/a'\nalias = qwen\n")
    assert [problem.line for problem in error.problems] == [4]
    error = refused(tmp_path, "[[models]]\nmodel_id = org/a\n")
    assert [problem.line for problem in error.problems] == [2]


def test_many_problems_are_counted(tmp_path):
    keys = "".join(f"key{number} = 1\n" for number in range(30))
    error = refused(tmp_path, keys + MODEL)
    assert len(error.problems) == 30
    assert str(error).count("unknown key") == MAX_SHOWN_PROBLEMS
    assert str(error).endswith("and 10 more.")


def test_utf_16_is_named(tmp_path):
    assert "UTF-16" in str(refused(tmp_path, MODEL.encode("utf-16")))


def test_keys_of_other_tools_are_named_in_a_file(tmp_path):
    error = refused(tmp_path, f"{MODEL}n-gpu-layers = 99\nnum_ctx = 4096\nttl = 60\nhf_repo = 'x'\nmmproj = 'y'\n")
    assert [problem.hint for problem in error.problems] == [
        "Did you mean 'n_gpu_layers'? It belongs in [models.device].",
        "Write max_seq_len in [models.device].",
        "Write idle_unload_seconds.",
        "Write model_id.",
        "It belongs in [models.format].",
    ]


def test_variables_of_the_environment_are_used_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("PORT", "8080")
    monkeypatch.setenv("SECRET", "hunter2hunter2")
    path = tmp_path / "models.toml"
    path.write_text(f"[server]\nport = '${{PORT}}'\napi_keys = ['${{SECRET}}']\n{MODEL}")
    config = load_config(path)
    assert config.server.port == 8080
    assert config.server.api_keys[0].get_secret_value() == "hunter2hunter2"
    error = refused(
        tmp_path, f"default_model_id = '${{SECRET}}'\n[server]\nport = '${{SECRET}}'\nhost = '${{NO_SUCH}}'\n{MODEL}"
    )
    assert [problem.line for problem in error.problems] == [1, 3, 4]
    assert "hunter2" not in str(error)
    assert "hunter2" not in repr(error)
    assert "NO_SUCH is not set" in str(error)


def test_files_that_are_not_there_are_found_with_their_lines(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(
        "[server]\nimage_folders = ['no']\n[[models]]\nmodel_id = './none.gguf'\n"
        "[[models]]\nmodel_id = 'org/a'\nquantization.imatrix = 'i'\n"
    )
    problems = located(path, missing_paths(load_config(path)))
    assert sorted(problem.line for problem in problems) == [2, 4, 7]
    assert f"model_id './none.gguf' does not exist: there is no {tmp_path / 'none.gguf'}." in str(problems[0])


def test_an_error_without_a_file_has_no_position():
    with pytest.raises(ConfigError) as caught:
        validate_config({"models": [{"model_id": "a", "contxt": 5}]})
    (problem,) = caught.value.problems
    assert (problem.line, problem.key, problem.location) == (None, "models.a.contxt", ("models", 0, "contxt"))
    assert ConfigError("x", ["sentence"]).problems == (ConfigProblem("sentence"),)
