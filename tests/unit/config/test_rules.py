"""The rules across models, each with its message."""

import pytest

from modelyard.config import (
    ISQ_NAMES,
    QUANT_NAMES,
    Config,
    Model,
    default_model,
    effective_cpu,
    isolation_of,
    running_at_once,
)
from modelyard.config import adapter_rules as adapter_rules_module
from modelyard.config import rules as rules_module
from modelyard.config import weight_rules as weight_rules_module
from modelyard.config.schema import Runtime


class Sentences:
    """The rules of a module, with their problems as text."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, rule):
        return lambda *values: [str(problem) for problem in getattr(self._module, rule)(*values)]


rules, weight_rules = Sentences(rules_module), Sentences(weight_rules_module)
adapter_rules = Sentences(adapter_rules_module)


def numbered(*models):
    return {number: Model.model_validate(model) for number, model in enumerate(models, 1)}


def config(*models, default_model_id=None):
    return Config.model_validate({"models": list(models), "default_model_id": default_model_id})


SMOL = {"model_id": "org/smol", "alias": "smol"}
GEMMA = {"model_id": "org/gemma", "aliases": ["g"]}


def on(cpu):
    return {"model_id": f"cpu-{cpu}", "device": {"cpu": cpu}}


def test_a_configuration_needs_a_model():
    assert rules.no_models({}) == ["No models: name at least one in a [[models]] table."]
    assert rules.no_models(numbered(SMOL)) == []


def test_models_with_names_of_their_own_share_none():
    assert rules.shared_names(numbered(SMOL, GEMMA)) == []


def test_repeating_a_name_within_a_model_is_no_clash():
    assert rules.shared_names(numbered({"model_id": "a", "alias": "a", "aliases": ["a", "a"]})) == []


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ({"model_id": "a"}, {"model_id": "a"}, "a"),
        ({"model_id": "a"}, {"model_id": "b", "alias": "a"}, "a"),
        ({"model_id": "a", "alias": "x"}, {"model_id": "b", "alias": "x"}, "x"),
        ({"model_id": "a", "alias": "x"}, {"model_id": "b", "aliases": ["x"]}, "x"),
        ({"model_id": "a", "alias": "x"}, {"model_id": "b", "aliases": ["a"]}, "a"),
    ],
)
def test_a_name_that_two_models_share_is_refused(first, second, name):
    assert rules.shared_names(numbered(first, second)) == [
        f"The name '{name}' belongs to more than one model: [[models]] 1 ('a') and [[models]] 2 "
        f"('{second['model_id']}'). Give each an alias of its own."
    ]


@pytest.mark.parametrize("alias", ["y", None])
def test_the_same_weights_may_be_served_twice_under_aliases_of_their_own(alias):
    again = {"model_id": "a"} if alias is None else {"model_id": "a", "alias": alias}
    assert rules.shared_names(numbered({"model_id": "a", "alias": "x"}, again)) == []


@pytest.mark.parametrize(
    "model",
    [
        {"model_id": "default"},
        {"model_id": "default", "alias": "a"},
        {"model_id": "a", "alias": "default"},
        {"model_id": "a", "aliases": ["default"]},
    ],
)
def test_no_model_may_be_called_default(model):
    assert rules.reserved_names(numbered(GEMMA, model)) == [
        f"[[models]] 2 ('{model['model_id']}'): the name 'default' is reserved for the default model. "
        "Choose another one, and name the model in default_model_id."
    ]


@pytest.mark.parametrize("name", ["org/smol", "smol", "org/gemma", "g", None])
def test_the_default_may_be_any_name_of_any_model(name):
    assert rules.unknown_default(name, numbered(SMOL, GEMMA)) == []


def test_an_unknown_default_names_the_closest_match():
    assert rules.unknown_default("org/smoll", numbered(SMOL, GEMMA)) == [
        "default_model_id 'org/smoll' is not the id or an alias of any model. Did you mean 'org/smol'?"
    ]


def test_an_unknown_default_that_is_close_to_nothing_lists_the_names():
    assert rules.unknown_default("qwen", numbered(SMOL, GEMMA)) == [
        "default_model_id 'qwen' is not the id or an alias of any model. Known: smol, org/smol, org/gemma, g."
    ]


@pytest.mark.parametrize("name", ["org/gemma", "g", None])
def test_any_other_model_may_draft(name):
    assert rules.unknown_drafts(numbered(SMOL | {"draft": name}, GEMMA)) == []


def test_a_draft_model_that_does_not_exist_names_the_closest_match():
    assert rules.unknown_drafts(numbered(SMOL | {"draft": "org/gema"}, GEMMA)) == [
        "[[models]] 1 ('org/smol'): draft 'org/gema' is not the id or an alias of any model. Did you mean 'org/gemma'?"
    ]


def test_no_model_drafts_for_itself():
    assert rules.unknown_drafts(numbered(SMOL | {"draft": "smol"}, GEMMA)) == [
        "[[models]] 1 ('org/smol'): draft names the model itself. Name a smaller one, or none."
    ]


def test_models_that_leave_cpu_unset_follow_the_others():
    models = numbered(on(True), {"model_id": "unset"})
    assert effective_cpu(models.values()) is True


@pytest.mark.parametrize("models", [[], [{"model_id": "unset"}], [on(False), {"model_id": "unset"}]])
def test_cpu_is_false_unless_a_model_asks_for_it(models):
    assert effective_cpu(numbered(*models).values()) is False


@pytest.mark.parametrize("name", [*QUANT_NAMES, "AUTO", " Q4K "])
def test_quant_takes_auto_and_every_isq_name(name):
    assert weight_rules.bad_quantisation(numbered({"model_id": "a", "quantization": {"quant": name}})) == []


@pytest.mark.parametrize("name", [*ISQ_NAMES, "Q4_0", " hqq8 "])
def test_isq_takes_every_isq_name(name):
    assert weight_rules.bad_quantisation(numbered({"model_id": "a", "quantization": {"isq": name}})) == []


def test_the_isq_names_are_those_of_the_reference():
    assert ", ".join(ISQ_NAMES) == (
        "2, 3, 4, 5, 6, 8, q4_0, q4_1, q5_0, q5_1, q8_0, q8_1, q2k, q3k, q4k, q5k, q6k, q8k, hqq4, hqq8, fp8, "
        "afq2, afq3, afq4, afq6, afq8, f8q8, mxfp4"
    )


@pytest.mark.parametrize(
    ("key", "name", "known"),
    [
        ("quant", "7", QUANT_NAMES),
        ("quant", "1", QUANT_NAMES),
        ("quant", "16", QUANT_NAMES),
        ("isq", "q4_k_m", ISQ_NAMES),
        ("isq", "auto", ISQ_NAMES),
    ],
)
def test_an_unknown_quantisation_lists_the_choices(key, name, known):
    assert weight_rules.bad_quantisation(numbered(SMOL, {"model_id": "a", "quantization": {key: name}})) == [
        f"[models.quantization] of model 2 ('a'): {key} '{name}' is not a known quantisation. "
        f"Choose one of {', '.join(known)}."
    ]


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (("quant", "isq"), "quant and isq"),
        (("quant", "from_uqff"), "quant and from_uqff"),
        (("isq", "from_uqff"), "isq and from_uqff"),
        (("quant", "isq", "from_uqff"), "quant and isq and from_uqff"),
    ],
)
def test_there_is_one_way_to_the_weights(keys, named):
    assert weight_rules.bad_quantisation(numbered({"model_id": "a", "quantization": dict.fromkeys(keys, "4")})) == [
        f"[models.quantization] of model 1 ('a'): {named} exclude each other. Keep one of them."
    ]


@pytest.mark.parametrize(("max_seqs", "prefix_cache_n"), [(32, 16), (256, 0), (1, 255)])
def test_an_engine_holds_up_to_256_sequences(max_seqs, prefix_cache_n):
    assert rules.too_many_sequences(Runtime(max_seqs=max_seqs, prefix_cache_n=prefix_cache_n)) == []


def test_an_engine_cannot_hold_more_than_256_sequences():
    assert rules.too_many_sequences(Runtime(max_seqs=256, prefix_cache_n=1)) == [
        "[runtime]: max_seqs + prefix_cache_n may be at most 256, not 256 + 1."
    ]


def test_a_step_has_room_for_a_token_of_every_running_request():
    assert rules.unfit_batch(Runtime(max_seqs=64, batch_tokens=64)) == []
    (problem,) = rules.unfit_batch(Runtime(max_seqs=65, batch_tokens=64))
    assert "batch_tokens (64) must be at least max_seqs (65)" in problem


def test_processes_are_refused_on_windows_alone():
    models = numbered(SMOL | {"isolation": "process"}, GEMMA | {"isolation": "thread"})
    advice = 'isolation "process" does not work on Windows. Set it to "thread", or remove it.'
    assert rules.processes_on_windows(Runtime(isolation="process"), models, "win32") == [
        f"[runtime]: {advice}",
        f"[[models]] 1 ('org/smol'): {advice}",
    ]
    assert rules.processes_on_windows(Runtime(isolation="process"), models, "linux") == []
    assert rules.processes_on_windows(Runtime(), numbered(SMOL), "win32") == []


def test_the_isolation_of_a_model_goes_before_that_of_all_models():
    chosen = Config.model_validate(
        {"models": [SMOL | {"isolation": "thread"}, GEMMA], "runtime": {"isolation": "process"}}
    )
    assert [isolation_of(chosen, model) for model in chosen.models] == ["thread", "process"]
    assert isolation_of(config(SMOL), config(SMOL).models[0]) == "auto"


def test_a_quantised_cache_needs_flash_attention():
    for flash_attn in (None, True):
        assert rules.kv_type_without_flash(Runtime(kv_type="q8_0", flash_attn=flash_attn)) == []
    assert rules.kv_type_without_flash(Runtime(flash_attn=False)) == []
    (problem,) = rules.kv_type_without_flash(Runtime(kv_type="q8_0", flash_attn=False))
    assert "q8_0" in problem


@pytest.mark.parametrize(("name", "listed"), [("org/smol", "smol"), ("smol", "smol"), ("g", "org/gemma")])
def test_the_default_is_the_listed_id_of_the_model_that_is_named(name, listed):
    assert default_model(config(SMOL, GEMMA, default_model_id=name)) == listed


def test_the_only_model_is_the_default():
    assert default_model(config(SMOL)) == "smol"


@pytest.mark.parametrize("models", [(), (SMOL, GEMMA)])
def test_without_a_choice_there_is_no_default(models):
    assert default_model(config(*models)) is None


def test_a_default_that_no_model_has_is_none():
    assert default_model(config(SMOL, default_model_id="qwen")) is None


def format_problem(table, **model):
    (problem,) = weight_rules.bad_format(numbered({"model_id": "org/a", **model, "format": table}))
    prefix = f"[models.format] of model 1 ('{model.get('model_id', 'org/a')}'): "
    assert problem.startswith(prefix)
    return problem.removeprefix(prefix)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"format": "gguf"},
        {"format": "plain"},
        {"quantized_file": "a-Q4_K_M.gguf"},
        {"format": "gguf", "quantized_file": "a-00001-of-00002.gguf; a-00002-of-00002.gguf", "mmproj": "p.GGUF"},
    ],
)
def test_files_may_be_named(table):
    assert weight_rules.bad_format(numbered({"model_id": "org/a", "format": table})) == []


def test_several_files_are_parted_by_semicolons():
    (model,) = numbered({"model_id": "org/a", "format": {"quantized_file": " a.gguf ;b.gguf;"}}).values()
    assert model.format.quantized_files == ("a.gguf", "b.gguf")


@pytest.mark.parametrize("key", ["quant", "isq", "from_uqff"])
def test_a_file_that_is_named_is_the_way_to_the_weights(key):
    assert format_problem({"quantized_file": "a.gguf"}, quantization={key: "4"}) == (
        f"quantized_file and {key} exclude each other: the file that is named is served as it is. Keep one of them."
    )


@pytest.mark.parametrize("table", [{"format": "ggml"}, {"quantized_file": "a.ggml"}, {"quantized_file": "ggml-a.bin"}])
def test_ggml_is_refused_with_what_to_do(table):
    assert format_problem(table) == (
        "GGML is the format before GGUF, which llama.cpp no longer reads. Name a GGUF file of the model."
    )


@pytest.mark.parametrize(("key", "name"), [("quantized_file", "a.safetensors"), ("mmproj", "p.onnx")])
def test_only_gguf_files_can_be_named(key, name):
    assert format_problem({key: name}) == f"{key} '{name}' must be a GGUF file: its name must end in .gguf."


@pytest.mark.parametrize("key", ["quantized_file", "mmproj"])
def test_full_precision_has_no_gguf_files(key):
    assert format_problem({"format": "plain", key: "a.gguf"}) == (
        f'format "plain" is full precision in safetensors, and {key} is GGUF. Keep one of them.'
    )


def test_a_format_does_not_contradict_the_file_that_is_the_model():
    assert format_problem({"format": "plain"}, model_id="a.gguf") == (
        "format \"plain\" is full precision in safetensors, and 'a.gguf' is GGUF."
    )


def test_a_model_that_is_a_file_has_no_file_to_be_named():
    assert "model_id names a file already" in format_problem({"quantized_file": "a.gguf"}, model_id="b.gguf")


def test_a_list_of_files_names_one():
    assert format_problem({"quantized_file": ";"}).startswith("quantized_file names no file.")


def test_an_embedding_model_sees_no_pictures():
    assert "kind = 'embedding'" in format_problem({"mmproj": "p.gguf"}, kind="embedding")


def sized(size):
    return {"model_id": "a", "device": {"max_batch_size": size}}


def test_a_model_has_its_own_number_of_requests_or_that_of_all():
    mixed = Config.model_validate({"runtime": {"max_seqs": 8}, "models": [sized(2), sized(None)]})
    assert [running_at_once(mixed, model) for model in mixed.models] == [2, 8]


def test_a_batch_size_obeys_the_bounds_of_max_seqs():
    assert rules.unfit_batch_size(Runtime(), numbered(sized(240), sized(None))) == []
    (sequences,) = rules.unfit_batch_size(Runtime(), numbered(sized(241)))
    assert sequences == (
        "[models.device] of model 1 ('a'): max_batch_size (241) and prefix_cache_n (16) may be at most 256."
    )
    (tokens,) = rules.unfit_batch_size(Runtime(max_seqs=8, batch_tokens=32), numbered(sized(33)))
    assert "max_batch_size (33) may be at most batch_tokens (32)" in tokens


def adapting(*adapters):
    return {**SMOL, "adapters": [{"path": "/no/such.gguf", **adapter} for adapter in adapters]}


def test_two_models_may_have_adapters_of_one_name_and_a_model_may_not():
    assert adapter_rules.repeated_adapters(numbered(adapting({"name": "a"}), {**GEMMA, "adapters": []})) == []
    (problem,) = adapter_rules.repeated_adapters(numbered(adapting({"name": "a"}, {"name": "a"})))
    assert "the name 'a' belongs to more than one adapter of [[models]] 1 ('org/smol')" in problem


def test_an_alias_of_an_adapter_is_no_other_name():
    (problem,) = adapter_rules.clashing_aliases(numbered(adapting({"name": "a", "alias": "g"}), GEMMA))
    assert "the alias 'g' is the name of another model" in problem
    twice = numbered(adapting({"name": "a", "alias": "x"}, {"name": "b", "alias": "x"}))
    assert len(adapter_rules.clashing_aliases(twice)) == 1
