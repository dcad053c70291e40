"""Which sizes the context of a model may have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.engine.placing import LlamaDevice
from modelyard.formats.gguf.header import GgufTensor
from modelyard.hub import ModelFiles, read_header
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.runtime import context_sizes
from modelyard.yard.runtime.context_sizes import SMALLEST_CELLS, with_sizes
from modelyard.yard.runtime.model_choices import choices_of
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, footprint_of
from support.sparse_models import write_dense

GPU = LlamaDevice("CUDA0", "", "gpu", 0, 24 << 30, "CUDA", "0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    path = write_dense(tmp_path_factory.mktemp("dense") / "dense.gguf", layers=8)
    header = read_header(path)
    return ModelFiles((path,), header, header.file_size, "", "F16", parameter_count=1)


@pytest.fixture(autouse=True)
def each_byte_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_sizes, "MIN_SAVED_BYTES", 1)


def spec(length: Any = 6000, **tables: Any) -> ModelSpec:
    model = {"model_id": "org/a", "device": {"max_seq_len": length}}
    config = validate_config({"models": [model], **tables})
    return ModelSpec(config, config.models[0])


def sized(one: ModelSpec, files: ModelFiles, devices: tuple[LlamaDevice, ...] = ()) -> Footprint:
    found = SpecFiles(files, None)
    return with_sizes(one, found, choices_of(one, found, devices))[0]


def test_a_context_has_sizes_that_double_up_to_the_promised_one(files: ModelFiles) -> None:
    found = sized(spec(), files)
    assert [size.cells for size in found.sizes] == [512, 1024, 2048, 4096, 6144]
    assert found == replace(footprint_of(spec().config, spec().model, files), sizes=found.sizes, cells=6144)
    for size in found.sizes:
        predicted = footprint_of(spec().config, spec(size.cells).model, files)
        assert size.context_bytes == predicted.context_bytes
    assert found.smallest.cells == SMALLEST_CELLS
    assert found.smallest.whole == found


def test_a_step_fits_the_smallest_context(files: ModelFiles) -> None:
    found = sized(spec(runtime={"batch_tokens": 1500}), files)
    assert [size.cells for size in found.sizes] == [1536, 3072, 6144]


@pytest.mark.parametrize(
    ("one", "changed"),
    [
        (spec(length=512), {}),
        (spec(memory={"kv_keep": "memory"}), {}),
        (spec(), {"kind": "embedding"}),
    ],
)
def test_a_context_keeps_its_size(files: ModelFiles, one: ModelSpec, changed: dict[str, Any]) -> None:
    assert sized(one, replace(files, **changed)).sizes == ()


def test_a_context_on_a_device_keeps_its_size(files: ModelFiles) -> None:
    found = SpecFiles(files, None)
    assert all(each.sizes == () for each in with_sizes(spec(), found, choices_of(spec(), found, (GPU,))))


def test_a_model_that_computes_otherwise_in_a_longer_context_keeps_its_size(files: ModelFiles) -> None:
    factors = GgufTensor("rope_factors_long.weight", (32,), "F32", 0, 128)
    header = replace(files.header, tensors=(*files.header.tensors, factors))
    assert sized(spec(), replace(files, header=header)).sizes == ()


def test_a_context_that_would_save_little_keeps_its_size(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_sizes, "MIN_SAVED_BYTES", 1 << 40)
    assert sized(spec(), files).sizes == ()


def test_what_else_a_context_takes_counts_in_each_of_its_sizes(files: ModelFiles) -> None:
    found = sized(spec(), files)
    draft = Footprint("d", 10, 7)
    for more, changed in ((7, found.drafted_by(draft)), (0, found.in_process())):
        for size in found.sizes:
            assert changed.with_cells(size.cells).context_bytes == size.context_bytes + more
    raised = found.with_context(found.context_bytes - 1)
    assert raised.smallest.context_bytes == found.context_bytes - 1
    assert raised.whole.context_bytes == found.context_bytes
    measured = found.smallest.corrected(0, found.smallest.context_bytes + 5)
    assert measured.whole.context_bytes == found.context_bytes + 5
