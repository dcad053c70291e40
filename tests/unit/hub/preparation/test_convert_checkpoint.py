"""Checks of a checkpoint's files before it is converted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelyard.errors import UnusableModel
from modelyard.hub import ConvertedModels, FileRequest, Stores, plan_files
from modelyard.hub.preparation.convert_checkpoint import convert_checkpoint, log_notice


def test_weights_that_are_cut_off_are_refused_by_name_before_the_converter_starts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    weights = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(1000, np.float32)}, weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    plan = plan_files(FileRequest(str(tmp_path)), Stores(converted=ConvertedModels(tmp_path / "converted")))
    with pytest.raises(UnusableModel, match=r"model\.safetensors: .* is damaged: 'a' lies at 0 to 4000, but there are"):
        convert_checkpoint(plan, tmp_path, tmp_path / "out.gguf", None, lambda _: True)
    assert not (tmp_path / "out.gguf").exists()


def test_a_notice_names_the_model_that_is_converted(caplog: pytest.LogCaptureFixture) -> None:
    log_notice("tiny")("Some weights were left out.")
    assert caplog.messages == ["tiny: Some weights were left out."]
