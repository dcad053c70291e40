"""The source of a checkpoint's projector: a published file, its own towers, or none with a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import ConvertedModels, FilePlan, FileRequest, Stores, estimate_files, plan_files
from modelyard.hub.preparation.convert_checkpoint import GgufOutput
from modelyard.hub.preparation.prepare_projector import attach_projector, projector_output
from modelyard.hub.select.gguf import FileChoice
from modelyard.hub.select.model_files import read_files
from modelyard.hub.sources.llama_converter import KnownArchitectures
from support.gguf_writer import BOOL, STR, U32, Tensor, gguf, tiny_model, write

KNOWN = KnownArchitectures(frozenset({"SeeingForCausalLM"}), frozenset({"SeeingForCausalLM"}))
VISION = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
HEARING = {"architectures": ["SeeingForCausalLM"], "hidden_size": 64, "audio_config": VISION}
SEEING = {"architectures": ["SeeingForCausalLM"], "hidden_size": 64, "vision_config": VISION}


@pytest.fixture(autouse=True)
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.hub.preparation.projector_plan.known_architectures", lambda: KNOWN)


def planned(folder: Path, config: dict[str, Any], **wanted: Any) -> FilePlan:
    folder.mkdir(exist_ok=True)
    # A file that is written again has another modification time, which is a part of the conversion's key.
    if not (written := folder / "config.json").is_file() or json.loads(written.read_text()) != config:
        written.write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes(bytes(1000))
    return plan_files(FileRequest(str(folder), **wanted), Stores(converted=ConvertedModels(folder / "converted")))


def test_a_checkpoint_with_a_known_tower_gets_a_projector_of_its_own(tmp_path: Path) -> None:
    plan = planned(tmp_path, SEEING, isq="4")
    conversion = plan.projector.conversion
    assert conversion is not None
    assert (conversion.label, conversion.made, plan.projector.warning) == ("F16", None, "")
    assert conversion.key != plan.key
    assert not plan.is_ready
    files = estimate_files(plan, Stores())
    assert (files.kind, files.projector_bytes) == ("multimodal", conversion.output_bytes)


def test_all_levels_of_a_checkpoint_share_one_projector(tmp_path: Path) -> None:
    keys = {
        plan.projector.conversion.key
        for wanted in ({"isq": "4"}, {"isq": "8"}, {})
        if (plan := planned(tmp_path, SEEING, **wanted)).projector.conversion is not None
    }
    assert len(keys) == 1


def test_the_precision_of_a_projector_is_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    conversion = planned(tmp_path, SEEING, dtype="f32").projector.conversion
    assert conversion is not None
    assert conversion.label == "F32"


def test_a_published_projector_goes_first(tmp_path: Path) -> None:
    (tmp_path / "mmproj-BF16.gguf").touch()
    plan = planned(tmp_path, SEEING)
    assert plan.projector.name == "mmproj-BF16.gguf"
    assert plan.projector.conversion is None


def test_as_text_it_has_none(tmp_path: Path) -> None:
    plan = planned(tmp_path, SEEING, kind="text")
    assert not plan.projector
    assert plan.projector.warning == ""


def test_a_tower_that_is_not_known_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    config = {**SEEING, "architectures": ["NewForCausalLM"]}
    plan = planned(tmp_path, config)
    assert not plan.projector
    assert plan.projector.warning == (
        "The model is served as text: llama.cpp's converter does not know the vision tower of NewForCausalLM."
    )
    files = estimate_files(plan, Stores())
    assert (files.kind, files.warnings) == ("text", (plan.projector.warning,))
    with pytest.raises(UnusableModel, match=r"kind = 'multimodal', but llama.cpp's converter does not know the vision"):
        planned(tmp_path, config, kind="multimodal")


def test_a_model_of_text_alone_cannot_be_multimodal(tmp_path: Path) -> None:
    config = {"architectures": ["SeeingForCausalLM"], "vision_config": None}
    assert planned(tmp_path, config).projector.warning == ""
    with pytest.raises(UnusableModel, match=r"describes no vision or audio tower. Set kind = 'text'"):
        planned(tmp_path, config, kind="multimodal")


# llama.cpp aborts the process on this projector: see test_projector.
VOXTRAL = {
    "general.architecture": (STR, "clip"),
    "general.type": (STR, "mmproj"),
    "clip.has_audio_encoder": (BOOL, True),
    "clip.projector_type": (STR, "voxtral"),
    "clip.audio.embedding_length": (U32, 32),
    "clip.audio.attention.head_count": (U32, 2),
    "clip.audio.block_count": (U32, 1),
    "clip.audio.num_mel_bins": (U32, 128),
    "clip.audio.projector.stack_factor": (U32, 4),
}


def test_a_tower_that_converts_and_cannot_run_is_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(
        _plan: FilePlan, _folder: Path, model: GgufOutput | None, projector: GgufOutput | None, _: object
    ) -> None:
        assert model is None
        assert projector is not None
        write(projector.path, gguf(VOXTRAL, [Tensor("a.blk.0.attn_q.weight", (32, 32))]))

    monkeypatch.setattr("modelyard.hub.preparation.prepare_projector.check_converter", lambda: None)
    monkeypatch.setattr("modelyard.hub.preparation.prepare_projector.convert_checkpoint", convert)
    text = write(tmp_path / "text" / "voxtral-F16.gguf", tiny_model())
    files = read_files(text.parent, FileChoice((text.name,), "", "F16"), None, "auto")
    folder, stores = tmp_path / "checkpoint", Stores(converted=ConvertedModels(tmp_path / "checkpoint" / "converted"))
    plan = planned(folder, HEARING)
    served = attach_projector(plan, files, stores, lambda _: True)
    assert (served.kind, served.projector) == ("text", None)
    (warning,) = served.warnings
    assert warning.startswith("The model is served as text: ")
    assert "counts on 187 tokens for a window of 30 s, and computes 188" in warning
    with pytest.raises(UnusableModel, match="counts on 187 tokens"):
        attach_projector(planned(folder, HEARING, kind="multimodal"), files, stores, lambda _: True)


def test_a_projector_that_is_written_beside_its_model_is_kept_and_one_that_is_not_leaves_nothing(
    tmp_path: Path,
) -> None:
    stores = Stores(converted=ConvertedModels(tmp_path / "converted"))
    plan = planned(tmp_path / "checkpoint", SEEING)
    conversion = plan.projector.conversion
    assert conversion is not None
    with projector_output(plan, stores, lambda _: True) as output:
        assert output is not None
        assert output.precision == "f16"
    assert stores.converted.list() == []
    with projector_output(plan, stores, lambda _: True) as output:
        assert output is not None
        write(output.path, tiny_model())
    (made,) = stores.converted.list()
    assert (made.key, made.path.name) == (conversion.key, "mmproj-checkpoint-F16.gguf")
    with projector_output(plan, stores, lambda _: True) as output:
        assert output is None, "it is there already"
    stores.converted.delete(made)
    stores.projectors.record_failure(conversion.key, "it has no weights")
    with projector_output(plan, stores, lambda _: True) as output:
        assert output is None, "it would fail again"
