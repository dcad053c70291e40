from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub.preparation.plan import Stores, plan_files
from modelyard.hub.select.isq import Target
from modelyard.hub.select.select import Decision, FileRequest, NeedsListing, select_files
from modelyard.hub.select.uqff import choose_uqff
from modelyard.hub.sources.converted import ConvertedModels
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.listing import ListedFile, Listing

WHOLE = ("config.json", "tokenizer.json", "residual.safetensors")
MIRROR_REPOS = ("mistralrs-community/{name}-UQFF", "{repo}-GGUF")


def listing(*names: str, repo: str = "org/tiny-UQFF", report: Any = None, bases: tuple[str, ...] = ()) -> Listing:
    text = None if report is None else report if isinstance(report, bytes) else json.dumps(report).encode()
    names = (*names, *(() if text is None else ("uqff_report.json",)))
    files = tuple(ListedFile(name, 100, is_here=False) for name in sorted(names))
    return Listing(repo, files, hub_id=HubId(repo), commit="c", base_models=bases, uqff_report=text)


def output(quant: str, *shards: str) -> dict[str, Any]:
    return {"quant": quant, "shards": list(shards), "layers": 1, "actual_counts": {}, "fallback_count": 0}


def report(*outputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schema": 1, "outputs": list(outputs), **more}


def refusal(here: Listing, wanted: str) -> str:
    with pytest.raises(UnusableModel) as refused:
        choose_uqff(here, wanted)
    return str(refused.value)


# Names of files and types

PUBLISHED = ("q4k-0.uqff", "q4k-1.uqff", "afq4-0.uqff", "q8_0-0.uqff", "afq6-0.uqff", "own.uqff")


@pytest.mark.parametrize(
    ("wanted", "shards"),
    [
        ("q4k-0.uqff", ("q4k-0.uqff", "q4k-1.uqff")),
        ("q4k-1.uqff", ("q4k-0.uqff", "q4k-1.uqff")),
        ("q4k", ("q4k-0.uqff", "q4k-1.uqff")),
        ("Q4K", ("q4k-0.uqff", "q4k-1.uqff")),
        ("4", ("q4k-0.uqff", "q4k-1.uqff")),
        ("6", ("afq6-0.uqff",)),
        ("8", ("q8_0-0.uqff",)),
        ("afq4", ("afq4-0.uqff",)),
        ("own.uqff", ("own.uqff",)),
        ("own", ("own.uqff",)),
        ("own.uqff;q8_0-0.uqff", ("own.uqff", "q8_0-0.uqff")),
        (" q4k-0.uqff ; q4k-1.uqff ;", ("q4k-0.uqff", "q4k-1.uqff")),
    ],
)
def test_a_name_means_all_shards_of_its_set(wanted: str, shards: tuple[str, ...]):
    assert choose_uqff(listing(*PUBLISHED), wanted).names == shards


def test_shards_are_in_the_order_of_their_numbers():
    names = [f"q4k-{number}.uqff" for number in range(11)]
    assert choose_uqff(listing(*names), "q4k").names == tuple(names)


@pytest.mark.parametrize("wanted", ["5", "q5k", "q4_k_m", "q4k-2.uqff", "none.uqff"])
def test_what_is_not_there_is_an_error_that_lists_what_is(wanted: str):
    message = refusal(listing("q4k-0.uqff", "afq4-0.uqff"), wanted)
    assert message == f"'org/tiny-UQFF' has no UQFF that is '{wanted}'. Its UQFF files: afq4-0.uqff, q4k-0.uqff."


def test_no_name_at_all_is_an_error():
    assert refusal(listing("q4k-0.uqff"), " ; ").startswith("' ; ' names no UQFF file.")


@pytest.mark.parametrize(
    ("shards", "lacking"),
    [(("q4k-0.uqff", "q4k-2.uqff"), "q4k-1.uqff"), (("q4k-1.uqff",), "q4k-0.uqff")],
)
def test_a_missing_shard_is_named(shards: tuple[str, ...], lacking: str):
    assert f"lacks the shard {lacking}, but has {shards[-1]}" in refusal(listing(*shards), "q4k")


# The report


def test_the_report_says_which_shards_belong_together():
    here = listing("a.uqff", "b.uqff", "q4k-0.uqff", report=report(output("Q4K", "a.uqff", "b.uqff")))
    for wanted in ("4", "q4k", "a.uqff", "b.uqff"):
        assert choose_uqff(here, wanted).names == ("a.uqff", "b.uqff")
    assert "has no UQFF that is 'q4k-0.uqff'" in refusal(here, "q4k-0.uqff")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "lists no outputs"),
        (report(), "lists no outputs"),
        ({"outputs": {}}, "lists no outputs"),
        (report(output("", "a.uqff")), "has an output without a type ('quant') or without shards"),
        (report(output("q4k")), "has an output without a type ('quant') or without shards"),
        (report({"quant": "q4k", "shards": [1]}), "has an output without a type ('quant') or without shards"),
        ({"outputs": [1]}, "has an output without a type ('quant') or without shards"),
        (report(output("q4k", "a.uqff"), output("Q4K", "b.uqff")), "has two outputs of the type 'Q4K'"),
        (report(output("q4k", "gone.uqff")), "lists the shard 'gone.uqff' of 'q4k', which is missing"),
        (
            report(output("q4k", "a.uqff"), output("q8_0", "a.uqff")),
            "has the shard 'a.uqff' in two outputs, 'q4k' and 'q8_0'",
        ),
    ],
)
def test_a_report_that_contradicts_itself_or_the_files_is_refused(text: Any, message: str):
    here = listing("a.uqff", "b.uqff", report=text)
    assert refusal(here, "q4k").startswith(f"'org/tiny-UQFF': Its uqff_report.json {message}")


# Selection of a model's files


def selected(wanted: FileRequest, here: Listing, **seen: Listing) -> Decision:
    step = select_files(wanted, here, {listed.source: listed for listed in seen.values()})
    assert isinstance(step, Decision), step
    return step


def refused(wanted: FileRequest, here: Listing) -> str:
    with pytest.raises(UnusableModel) as error:
        select_files(wanted, here, {})
    return str(error.value)


def test_shards_come_with_the_weights_that_they_leave_out():
    here = listing(*WHOLE, "q4k-0.uqff", "afq4-0.uqff", "model.safetensors.index.json", "README.md")
    decision = selected(FileRequest("org/tiny-UQFF", from_uqff="4"), here)
    assert decision.form == "uqff"
    assert decision.names == ("q4k-0.uqff", "residual.safetensors", "config.json", "tokenizer.json")
    assert decision.reasons == ("q4k-0.uqff: UQFF of the type q4k.",)


def test_full_precision_weights_beside_the_shards_take_the_place_of_the_residual():
    here = listing(*WHOLE, "q4k-0.uqff", "model.safetensors")
    names = selected(FileRequest("org/tiny", from_uqff="q4k"), here).names
    assert "model.safetensors" in names
    assert "residual.safetensors" not in names


@pytest.mark.parametrize("missing", ["residual.safetensors", "config.json"])
def test_shards_alone_are_no_model(missing: str):
    here = listing("q4k-0.uqff", *(name for name in WHOLE if name != missing))
    assert f"has q4k-0.uqff, but no {missing}: UQFF is not the whole of a model" in refused(
        FileRequest("org/tiny-UQFF", from_uqff="q4k"), here
    )


def test_quant_prefers_the_uqff_of_the_repository_itself():
    here = listing(*WHOLE, "q4k-0.uqff", "model.safetensors", repo="org/tiny")
    wanted = FileRequest("org/tiny", quant="4", mirror_repos=MIRROR_REPOS)
    assert selected(wanted, here).form == "uqff"


def test_a_repository_of_uqff_alone_without_the_type_is_an_error_that_lists_what_it_has():
    for here in (
        listing(*WHOLE, "q8_0-0.uqff", repo="org/tiny"),
        listing("model.safetensors", "config.json", "q8_0-0.uqff", repo="org/tiny-uqff"),
    ):
        message = refused(FileRequest("org/tiny", quant="4", mirror_repos=MIRROR_REPOS), here)
        assert message.endswith("has no UQFF that is '4'. Its UQFF files: q8_0-0.uqff.")
    empty = refused(FileRequest("org/tiny-UQFF", quant="4"), listing("README.md"))
    assert empty == "'org/tiny-UQFF' has no UQFF that is '4'. Its UQFF files: none."


@pytest.mark.parametrize("wanted", [FileRequest("org/tiny-UQFF"), FileRequest("org/tiny-UQFF", isq="4")])
def test_uqff_alone_must_be_chosen_by_type(wanted: FileRequest):
    message = refused(wanted, listing(*WHOLE, "q4k-0.uqff", "q8_0-0.uqff"))
    assert message.startswith(
        "'org/tiny-UQFF' has only quantised weights in UQFF: choose some with quant or from_uqff."
    )


def test_the_published_uqff_comes_before_the_published_gguf():
    here = listing("model.safetensors", "config.json", repo="org/tiny")
    wanted = FileRequest("org/tiny", quant="4", mirror_repos=MIRROR_REPOS)
    assert select_files(wanted, here, {}) == NeedsListing("mistralrs-community/tiny-UQFF")
    uqff = listing(*WHOLE, "afq4-0.uqff", repo="mistralrs-community/tiny-UQFF", bases=("org/tiny",))
    decision = selected(wanted, here, uqff=uqff)
    assert (decision.form, decision.listing) == ("uqff", uqff)


def test_the_report_may_say_what_a_sibling_is_made_from():
    here = listing("model.safetensors", "config.json", repo="org/tiny")
    said = report(output("q4k", "q4k-0.uqff"), base_model="org/tiny")
    uqff = listing(*WHOLE, "q4k-0.uqff", repo="mistralrs-community/tiny-UQFF", report=said)
    assert selected(FileRequest("org/tiny", quant="4", mirror_repos=MIRROR_REPOS), here, uqff=uqff).form == "uqff"


@pytest.mark.parametrize(
    ("sibling", "why"),
    [
        (
            listing(*WHOLE, "q8_0-0.uqff", repo="mistralrs-community/tiny-UQFF", bases=("org/tiny",)),
            "'mistralrs-community/tiny-UQFF' has nothing that fits: 'mistralrs-community/tiny-UQFF' has no UQFF that "
            "is '4'. Its UQFF files: q8_0-0.uqff.",
        ),
        (
            listing(*WHOLE, "q4k-0.uqff", repo="mistralrs-community/tiny-UQFF", bases=("other/tiny",)),
            "'mistralrs-community/tiny-UQFF' is passed over: it declares to be made from other/tiny, not from "
            "'org/tiny'.",
        ),
        (
            listing(*WHOLE, "q4k-0.uqff", repo="mistralrs-community/tiny-UQFF", report=b"{"),
            "'mistralrs-community/tiny-UQFF' has nothing that fits: 'mistralrs-community/tiny-UQFF': Its "
            "uqff_report.json is not JSON",
        ),
    ],
)
def test_a_sibling_that_does_not_fit_is_passed_over(sibling: Listing, why: str):
    here = listing("model.safetensors", "config.json", repo="org/tiny")
    wanted = FileRequest("org/tiny", quant="4", mirror_repos=MIRROR_REPOS[:1])
    decision = selected(wanted, here, sibling=sibling)
    assert decision.form == "safetensors"
    assert decision.reasons[0].startswith(why)


def test_a_plan_knows_what_the_gguf_will_take(tmp_path: Path):
    for name in (*WHOLE, "afq2-0.uqff", "afq2-1.uqff", "q4k-0.uqff"):
        (tmp_path / name).write_bytes(bytes(1000))
    (tmp_path / "config.json").write_text("{}")
    stores = Stores(converted=ConvertedModels(tmp_path / "converted"))
    of_two_bits = plan_files(FileRequest(str(tmp_path), quant="afq2"), stores)
    assert (of_two_bits.output_bytes, of_two_bits.decision.target) == (5000, Target("Q4_1"))
    of_four_bits = plan_files(FileRequest(str(tmp_path), from_uqff="4"), stores)
    assert (of_four_bits.output_bytes, of_four_bits.decision.target) == (2000, Target("Q4_K_S"))
    assert of_two_bits.key != of_four_bits.key


def test_a_shard_that_is_named_itself_means_its_set(tmp_path: Path):
    for name in (*WHOLE, "q4k-0.uqff", "q4k-1.uqff", "model-Q8_0.gguf"):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text("{}")
    plan = plan_files(
        FileRequest(str(tmp_path / "q4k-1.uqff")), Stores(converted=ConvertedModels(tmp_path / "converted"))
    )
    assert plan.decision.form == "uqff"
    assert plan.decision.names[:2] == ("q4k-0.uqff", "q4k-1.uqff")
