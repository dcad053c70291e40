"""Selection by file name, format and dtype, from listings without files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.hub import FileRequest, plan_files
from modelyard.hub.preparation.plan import Stores
from modelyard.hub.select.select import Decision, NeedsListing, select_files
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.listing import ListedFile, Listing
from support.gguf_writer import tiny_model, write

CHECKPOINT = ("config.json", "tokenizer.json", "model.safetensors")
MIRROR_REPOS = ("{repo}-GGUF",)


def listing(*names: str) -> Listing:
    files = tuple(ListedFile(name, 1, is_here=False) for name in sorted(names))
    return Listing("org/tiny", files, hub_id=HubId("org/tiny"))


def selected(*names: str, **asked: Any) -> Decision:
    missing = RepositoryUnavailable("missing", "it does not exist")
    decision = select_files(
        FileRequest("org/tiny", mirror_repos=MIRROR_REPOS, **asked), listing(*names), {"org/tiny-GGUF": missing}
    )
    assert isinstance(decision, Decision)
    return decision


def refusal(*names: str, **asked: Any) -> str:
    with pytest.raises(UnusableModel) as refused:
        selected(*names, **asked)
    return str(refused.value)


# Named files


def test_the_file_that_is_named_is_taken_as_it_is():
    decision = selected("a-Q4_K_M.gguf", "a-Q8_0.gguf", quantized_file=("a-Q8_0.gguf",))
    assert (decision.names, decision.target) == (("a-Q8_0.gguf",), None)
    assert decision.reasons == ("a-Q8_0.gguf: it is named by quantized_file.",)


def test_one_shard_stands_for_all():
    shards = tuple(f"a-0000{number}-of-00003.gguf" for number in (1, 2, 3))
    assert selected(*shards, "b.gguf", quantized_file=shards[:1]).names == shards
    assert selected(*shards, quantized_file=shards).names == shards


def test_a_file_that_is_not_there_names_those_that_are():
    said = refusal("a-Q8_0.gguf", "mmproj-a.gguf", quantized_file=("a-Q4_0.gguf",))
    assert said == "'org/tiny' has no file 'a-Q4_0.gguf'. Its GGUF files: a-Q8_0.gguf."


def test_a_model_that_is_a_file_has_no_file_to_be_named(tmp_path: Path):
    model = write(tmp_path / "tiny.gguf", tiny_model())
    with pytest.raises(UnusableModel, match=r"is a file already: quantized_file names one of a folder"):
        plan_files(FileRequest(str(model), quantized_file=("other.gguf",)), Stores())


# Formats


def test_gguf_is_taken_beside_safetensors_where_that_is_the_format():
    both = (*CHECKPOINT, "a-Q4_K_M.gguf")
    assert selected(*both).form == "safetensors"
    assert selected(*both, file_format="gguf").names == ("a-Q4_K_M.gguf",)


def test_plain_is_quantised_here_where_gguf_is_published_too():
    both = (*CHECKPOINT, "a-Q4_K_M.gguf")
    assert selected(*both, quant="4").form == "gguf"
    decision = selected(*both, quant="4", file_format="plain")
    assert decision.form == "safetensors"
    assert decision.target is not None
    assert decision.target.label == "Q4_K_M"


def test_plain_never_asks_the_siblings_and_gguf_does():
    ask = FileRequest("org/tiny", quant="4", mirror_repos=MIRROR_REPOS, file_format="gguf")
    assert select_files(ask, listing(*CHECKPOINT), {}) == NeedsListing("org/tiny-GGUF")
    plain = FileRequest("org/tiny", quant="4", mirror_repos=MIRROR_REPOS, file_format="plain")
    assert isinstance(select_files(plain, listing(*CHECKPOINT), {}), Decision)


@pytest.mark.parametrize("quant", [None, "4"])
def test_a_format_that_is_not_there_says_so(quant: str | None):
    assert refusal(*CHECKPOINT, file_format="gguf", quant=quant) == (
        "'org/tiny' has no weights of the format 'gguf'. Remove format, or name another folder or repository."
    )
    assert "no weights of the format 'plain'" in refusal("a.gguf", file_format="plain")


# Numbers of full precision


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_safetensors_become_the_numbers_that_are_asked_for(dtype: Any):
    decision = selected(*CHECKPOINT, dtype=dtype)
    assert decision.form == "safetensors"
    assert decision.target is not None
    assert decision.target.label == dtype.upper()


def test_safetensors_keep_their_numbers_where_none_are_asked_for():
    decision = selected(*CHECKPOINT, dtype="auto")
    assert decision.target is not None
    assert decision.target.label == ""


@pytest.mark.parametrize(("dtype", "name"), [("bf16", "a-BF16.gguf"), ("f16", "a-fp16.gguf"), ("f32", "a-F32.gguf")])
def test_a_gguf_file_of_those_numbers_is_served_as_it_is(dtype: Any, name: str):
    decision = selected("a-BF16.gguf", "a-fp16.gguf", "a-F32.gguf", "a-Q4_0.gguf", dtype=dtype)
    assert (decision.names, decision.target) == ((name,), None)


def test_a_gguf_file_of_other_numbers_is_converted():
    decision = selected("a-F32.gguf", "a-Q4_0.gguf", dtype="bf16")
    assert decision.names == ("a-F32.gguf",)
    assert decision.target is not None
    assert decision.target.label == "BF16"


def test_numbers_that_were_quantised_away_are_gone():
    assert "only GGUF files that are quantised already" in refusal("a-Q4_0.gguf", "a-Q5_0.gguf", dtype="f16")


def test_beside_safetensors_the_only_gguf_file_of_full_precision_saves_the_conversion():
    assert selected(*CHECKPOINT, "a-BF16.gguf", "a-Q4_0.gguf").names == ("a-BF16.gguf",)
    assert selected(*CHECKPOINT, "a-BF16.gguf", "a-F32.gguf").form == "safetensors"
