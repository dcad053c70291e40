from __future__ import annotations

import random

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import FileChoice, choose_gguf
from modelyard.hub.select.gguf import check_tag, default_gguf
from modelyard.hub.sources.quant_labels import bits, label_in


def refusal(names: list[str], quant: str | None) -> str:
    with pytest.raises(UnusableModel) as refused:
        choose_gguf(names, quant)
    return str(refused.value)


def published(*labels: str) -> list[str]:
    """The files of a repository with those types, not sorted."""
    names = [f"Tiny-1B-{label}.gguf" for label in labels]
    random.Random(0).shuffle(names)
    return ["README.md", "config.json", *names]


def chosen(labels: list[str], quant: str) -> str:
    (name,) = choose_gguf(published(*labels), quant).names
    return name.removeprefix("Tiny-1B-").removesuffix(".gguf")


def test_the_only_model_is_chosen():
    names = ["mmproj-model-f16.gguf", "imatrix.gguf", "tiny-lora.gguf", "adapter.gguf", "README.md", "tiny.gguf"]
    assert choose_gguf(names, None) == FileChoice(("tiny.gguf",), "tiny.gguf: it is the only model there.", None)


def test_a_name_that_only_contains_lora_is_a_model():
    assert choose_gguf(["explorator-Q8_0.gguf"], None).label == "Q8_0"


def test_nothing_but_auxiliary_files_is_no_model():
    assert refusal([], None) == "There is no GGUF model. Name a folder or a file with a model."
    assert "There are only auxiliary files: mmproj.gguf." in refusal(["mmproj.gguf", "a.txt"], "4")


def test_several_models_without_quant_are_listed_with_what_to_write():
    assert refusal(["a-Q8_0.gguf", "a-Q4_K_M.gguf"], None) == (
        "There are 2 models, and no 'quant' selects one. There are: a-Q4_K_M.gguf (Q4_K_M), a-Q8_0.gguf (Q8_0). "
        "Set quant to one of 'q4_k_m', 'q8_0', or name the file itself."
    )
    assert refusal(["b-Q8_0.gguf", "a-Q4_K_M.gguf"], None).endswith("b-Q8_0.gguf (Q8_0). Name the file itself.")


def test_models_that_no_quant_can_tell_apart_are_to_be_named():
    assert refusal(["b.gguf", "a.gguf"], None).endswith(
        "There are: a.gguf (no type in its name), b.gguf (no type in its name). Name the file itself."
    )
    assert refusal(["a-Q8_0.gguf", "b-Q8_0.gguf"], None).endswith("Name the file itself.")


SHARDS = [f"big-Q4_K_M-0000{number}-of-00003.gguf" for number in (3, 1, 2)]


@pytest.mark.parametrize("quant", [None, "4", "q4_k_m"])
def test_shards_are_one_model_in_order(quant: str | None):
    choice = choose_gguf(SHARDS, quant)
    assert choice.names == tuple(sorted(SHARDS))
    assert choice.reason.startswith("big-Q4_K_M-00001-of-00003.gguf and 2 more shards: ")


def test_missing_shards_are_listed():
    assert refusal(SHARDS[:1], None) == (
        "2 of 3 shards are missing: big-Q4_K_M-00001-of-00003.gguf, big-Q4_K_M-00002-of-00003.gguf. Download them too."
    )
    assert "98 of 99 shards are missing: " in refusal(["x-00001-of-00099.gguf"], None)
    assert " and 93 more. Download them too." in refusal(["x-00001-of-00099.gguf"], None)


def test_an_incomplete_model_does_not_stand_in_the_way_of_another():
    assert choose_gguf([SHARDS[0], "big-Q8_0.gguf"], "8").names == ("big-Q8_0.gguf",)


def test_impossible_shards_are_refused():
    assert "'x-00003-of-00002.gguf' is no possible shard" in refusal(["x-00003-of-00002.gguf"], None)


def test_the_type_may_be_in_the_name_of_the_folder():
    names = ["Q8_0/model.gguf", "Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M/model-00002-of-00002.gguf"]
    assert choose_gguf(names, "4").names == ("Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M/model-00002-of-00002.gguf")


@pytest.mark.parametrize(
    ("quant", "in_order"),
    [
        ("2", ["Q2_K", "Q2_K_L", "Q2_K_S", "UD-Q2_K", "Q2_K_XL", "UD-Q2_K_XL"]),
        ("3", ["Q3_K_M", "Q3_K_S", "Q3_K_L", "Q3_K", "UD-Q3_K_M", "Q3_K_XL"]),
        ("4", ["Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_1", "Q4_0", "Q4_K", "UD-Q4_K_M", "Q4_K_XL", "UD-Q4_K_XL", "MXFP4"]),
        ("5", ["Q5_K_M", "Q5_K_S", "Q5_K_L", "Q5_1", "Q5_0", "Q5_K", "UD-Q5_K_S"]),
        ("6", ["Q6_K", "Q6_K_S", "Q6_K_L", "UD-Q6_K", "Q6_K_XL"]),
        ("8", ["Q8_0", "Q8_K", "UD-Q8_0", "Q8_K_XL", "UD-Q8_K_XL"]),
        ("q4k", ["Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_K"]),
        ("Q5_K", ["Q5_K_M", "Q5_K_S", "Q5_K_L", "Q5_K"]),
    ],
)
def test_the_best_type_that_is_there_is_taken(quant: str, in_order: list[str]):
    others = ["F16", "IQ4_XS", "IQ3_M", "Q1_0"]
    for best in range(len(in_order)):
        assert chosen([*in_order[best:], *others], quant) == in_order[best]


@pytest.mark.parametrize("quant", ["4", "q4", " Q4 "])
def test_a_width_may_be_written_with_its_letter(quant: str):
    assert chosen(["Q8_0", "Q4_K_S"], quant) == "Q4_K_S"


@pytest.mark.parametrize(
    ("quant", "label"),
    [("q4_k_m", "Q4_K_M"), ("Q4KM", "Q4_K_M"), ("q8_0", "Q8_0"), ("iq4_xs", "IQ4_XS"), ("ud-q4_k_xl", "UD-Q4_K_XL"),
     ("bf16", "BF16"), ("fp16", "F16"), ("mxfp4", "MXFP4"), ("q2k", "Q2_K")],
)  # fmt: skip
def test_a_label_is_matched_exactly_whatever_its_spelling(quant: str, label: str):
    labels = ["Q4_K_M", "Q4_K_S", "Q8_0", "IQ4_XS", "UD-Q4_K_XL", "BF16", "F16", "MXFP4", "Q2_K"]
    assert chosen(labels, quant) == label


def test_a_label_that_is_not_there_is_an_error_with_the_choices():
    assert refusal(published("Q4_K_M", "Q8_0"), "q5_k_m") == (
        "There is no 'q5_k_m' file. There are: Tiny-1B-Q4_K_M.gguf (Q4_K_M), Tiny-1B-Q8_0.gguf (Q8_0). "
        "Set quant to one of 'q4_k_m', 'q8_0', or name the file itself."
    )


def test_a_width_that_is_not_there_is_an_error_with_the_choices():
    assert refusal(published("Q4_K_M"), "8").startswith("There is no model of 8 bits. There are: Tiny-1B-Q4_K_M.gguf")


def test_a_number_never_means_an_iq_type():
    message = refusal(published("IQ4_XS", "UD-IQ4_NL", "Q8_0"), "4")
    assert message.startswith("Of 4 bits there are only IQ types, which a number never means. Name one of them.")
    assert "'iq4_xs'" in message
    assert "q8_0" not in message


def test_equally_good_models_are_ambiguous():
    assert refusal(["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "4").startswith("2 models match equally well. There are: a-Q4")
    assert refusal(["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "q4_k_m").startswith("2 models match equally well.")
    assert refusal(published("Q4_K_XL", "Q4_K_XXL"), "4").startswith("2 models match equally well.")


def test_a_single_file_whose_name_says_no_type_is_left_to_its_header():
    choice = choose_gguf(["model.gguf"], "4")
    assert (choice.names, choice.label) == (("model.gguf",), None)


@pytest.mark.parametrize("quant", ["auto", " AUTO "])
def test_auto_is_not_available(quant: str):
    assert "quant = 'auto' is not available in this version" in refusal(["a.gguf"], quant)


@pytest.mark.parametrize("quant", ["", "1", "7", "16", "q7", "afq4", "hqq4", "q4_k_m please", "int4"])
def test_what_is_no_level_is_refused(quant: str):
    assert refusal(["a.gguf"], quant).startswith(f"quant = '{quant}' is not a quantisation level. Write 2, 3, 4")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Qwen3-4B-Q4_K_M.gguf", "Q4_K_M"),
        ("Llama-3.Q8_0-imat.gguf", "Q8_0"),
        ("gpt-oss-20b-mxfp4.gguf", "mxfp4"),
        ("model-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("from-F16-to-Q4_0.gguf", "Q4_0"),
        ("Qwen2.5-Q.gguf", None),
        ("phi-2.gguf", None),
    ],
)
def test_labels_are_found_in_names(name: str, label: str | None):
    assert label_in(name) == label


@pytest.mark.parametrize(
    ("label", "width"),
    [("Q4_0", 4), ("Q4_K_M", 4), ("IQ4_NL", 4), ("MXFP4_MOE", 4), ("NVFP4", 4), ("Q8_0", 8), ("UD-Q2_K_XL", 2),
     ("TQ1_0", 1), ("BF16", 16), ("F16", 16), ("F32", 32), ("nonsense", None)],
)  # fmt: skip
def test_labels_have_a_width(label: str, width: int | None):
    assert bits(label) == width


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["x-Q8_0.gguf", "x-Q4_K_M.gguf", "x-Q4_K_S.gguf", "mmproj-x-F16.gguf"], "x-Q4_K_M.gguf"),
        (["x-Q8_0.gguf", "x-Q6_K.gguf", "x-F16.gguf"], "x-Q6_K.gguf"),
        (["Q8_0/x-Q8_0-00001-of-00001.gguf", "Q4_0/X.Q4_0.gguf"], "Q4_0/X.Q4_0.gguf"),
        (["x-Q8_0.gguf", "y-Q4_K_M.gguf"], None),
        (["x-Q8_0.gguf"], None),
        (["x-F16.gguf", "x-BF16.gguf"], None),
    ],
)
def test_of_several_quantisations_of_one_model_one_of_4_bits_is_the_default(names: list[str], chosen: str | None):
    choice = default_gguf(names)
    assert (None if choice is None else choice.names[0]) == chosen
    assert choice is None or "no quantisation was asked for" in choice.reason


@pytest.mark.parametrize("tag", ["q4_k_m", "ud-q4_k_xl", "4", "auto", "afq4", "bf16"])
def test_a_tag_is_a_quantisation(tag: str):
    check_tag(f"org/name:{tag}", tag)


def test_another_tag_is_refused_as_it_was_written():
    with pytest.raises(UnusableModel, match="'org/name:3B': The tag '3b' is not a quantisation"):
        check_tag("org/name:3B", "3b")
