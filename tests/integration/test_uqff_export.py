"""``modelyard quantize`` into UQFF: what the folder holds, and what is left where it does not get to the end."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.converter.safetensors_file import read_tensors
from modelyard.converter.uqff.blocks import dequantize
from modelyard.errors import UnusableModel
from modelyard.formats.uqff.reader import read_uqff
from modelyard.hub import FileRequest, Progress, Stores, UqffExport, export_uqff, parse_types
from support.gguf_writer import U32, tiny_model
from support.tiny_checkpoint import OUTER, make_tiny_checkpoint

WAIT_S = 60.0


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny"
    make_tiny_checkpoint(folder)
    return folder


def write(checkpoint: Path, out: Path, *types: str, dtype: Any = "auto", **other: Any) -> list[Path]:
    wanted = FileRequest(str(checkpoint), dtype=dtype)
    return export_uqff(wanted, UqffExport(types, out, **other), Stores(), lambda _: True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def report(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "uqff_report.json").read_text())
    return read


def test_several_types_share_what_is_not_quantised(checkpoint: Path, tmp_path: Path):
    out = tmp_path / "new" / "out"
    shards = write(checkpoint, out, "q4k", "afq4", base_model="org/tiny", repo_id="me/tiny-UQFF")
    assert [shard.name for shard in shards] == ["q4k-0.uqff", "afq4-0.uqff"]
    assert names(out) == [
        "README.md", "afq4-0.uqff", "chat_template.jinja", "config.json", "q4k-0.uqff", "residual.safetensors",
        "tokenizer.json", "tokenizer_config.json", "uqff_report.json",
    ]  # fmt: skip
    assert names(out.parent) == ["out"]
    assert [tensor.name for tensor in read_tensors(out / "residual.safetensors")] == [
        "model.layers.0.input_layernorm.weight"
    ]
    assert json.loads((out / "config.json").read_text()) == {"model_type": "llama", "text_config": {}}
    assert json.loads((out / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"
    card = (out / "README.md").read_text()
    assert "base_model: org/tiny" in card
    assert "-m me/tiny-UQFF" in card


def test_the_report_says_what_became_of_every_layer(checkpoint: Path, tmp_path: Path):
    write(checkpoint, tmp_path / "out", "q4k", "hqq4", base_model="org/tiny")
    said = report(tmp_path / "out")
    assert (said["schema"], said["uqff_version"], said["base_model"]) == (1, "1.2.0", "org/tiny")
    assert "repo_id" not in said
    q4k, hqq4 = said["outputs"]
    assert (q4k["quant"], q4k["shards"], q4k["layers"]) == ("q4k", ["q4k-0.uqff"], 5)
    assert q4k["actual_counts"] == {"q4_1": 1, "q4k": 2, "q6k": 2}
    assert q4k["fallback_count"] == 0
    down = next(layer for layer in q4k["layer_details"] if layer["module"].endswith("down_proj"))
    assert down == {
        "module": "model.layers.0.mlp.down_proj", "default_target": "q4k", "resolved_target": "q4k", "stored": "q4_1",
        "shape": [256, OUTER],
    }  # fmt: skip
    assert hqq4["actual_counts"] == {"hqq4": 5}


def test_a_layer_that_fits_no_type_is_kept_and_reported(tmp_path: Path):
    make_tiny_checkpoint(tmp_path / "Odd", {"model.layers.0.mlp.up_proj.weight": (8, 100)})
    write(tmp_path / "Odd", tmp_path / "out", "q4k")
    (output,) = report(tmp_path / "out")["outputs"]
    assert output["fallback_count"] == 1
    assert output["fallbacks"] == [
        {
            "module": "model.layers.0.mlp.up_proj", "from": "q4k", "to": "unquant", "shape": [8, 100],
            "reason": "rows of 100 are no multiple of 256",
        }
    ]  # fmt: skip


def test_a_shard_ends_before_the_layer_that_would_make_it_too_large(checkpoint: Path, tmp_path: Path):
    shards = write(checkpoint, tmp_path / "out", "q8_0", max_shard_bytes=100_000)
    assert [shard.name for shard in shards] == [f"q8_0-{number}.uqff" for number in range(len(shards))]
    assert len(shards) == 4
    layers = read_uqff(shards)
    weights = make_tiny_checkpoint(tmp_path / "again")
    assert {layer.prefix + ".weight" for layer in layers} == {
        name for name in weights if name.endswith(".weight") and "norm" not in name
    }
    for layer in layers:
        assert np.allclose(dequantize(layer), weights[f"{layer.prefix}.weight"], atol=0.004)


def test_dtype_is_that_of_everything_that_is_not_quantised(checkpoint: Path, tmp_path: Path):
    (shard,) = write(checkpoint, tmp_path / "out", "afq4", dtype="bf16")
    floats = [*read_tensors(shard), *read_tensors(tmp_path / "out" / "residual.safetensors")]
    assert {tensor.dtype for tensor in floats} == {"U8", "U32", "BF16"}


def test_an_export_given_up_at_any_point_leaves_what_was_there(checkpoint: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "q4k-0.uqff").write_text("earlier")
    for steps in (0, 1, 3):
        seen: list[Progress] = []

        def until(progress: Progress, seen: list[Progress] = seen, steps: int = steps) -> bool:
            seen.append(progress)
            return len(seen) <= steps

        with pytest.raises(UnusableModel, match="given up"):
            export_uqff(FileRequest(str(checkpoint)), UqffExport(("q4k",), out), Stores(), until)
        assert names(out) == ["q4k-0.uqff"]
        assert (out / "q4k-0.uqff").read_text() == "earlier"


def test_an_export_takes_the_place_of_an_earlier_one_with_all_its_shards(checkpoint: Path, tmp_path: Path):
    out = tmp_path / "out"
    write(checkpoint, out, "q8_0", max_shard_bytes=100_000)
    write(checkpoint, out, "q8_0")
    assert [name for name in names(out) if name.endswith(".uqff")] == ["q8_0-0.uqff"]


def test_what_cannot_be_put_in_place_leaves_what_was_there(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    write(checkpoint, out, "q8_0")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    moves: list[Path] = []
    move = Path.replace

    def fail_at_the_twelfth(path: Path, target: Path) -> Path:
        moves.append(path)
        if len(moves) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_twelfth)
    with pytest.raises(UnusableModel, match="cannot be written: No space left"):
        write(checkpoint, out, "q8_0", base_model="org/other")
    assert len(moves) == 2 * 12 - 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_other_weights_in_the_folder_are_not_mixed_with(checkpoint: Path, tmp_path: Path):
    write(checkpoint, tmp_path / "out", "q8_0")
    with pytest.raises(UnusableModel, match=r"other weights already \(q8_0-0.uqff\)"):
        write(checkpoint, tmp_path / "out", "q4k")
    with pytest.raises(UnusableModel, match=r"other weights already \(model.safetensors\)"):
        write(checkpoint, checkpoint, "q4k")


def test_gguf_is_no_source_of_uqff(tmp_path: Path):
    (tmp_path / "tiny-F16.gguf").write_bytes(tiny_model({"general.file_type": (U32, 1)}))
    with pytest.raises(UnusableModel, match="has no safetensors weights"):
        write(tmp_path / "tiny-F16.gguf", tmp_path / "out", "q4k")


def test_types_are_names_or_bits_and_an_unknown_one_lists_the_choices():
    assert parse_types(["4,Q8_0", " afq4 ", "q4k"]) == ("q4k", "q8_0", "afq4")
    with pytest.raises(UnusableModel, match=r"'q4_k_m' is no type of UQFF. Choose some of 2, 3, .*q2k.*mxfp4\."):
        parse_types(["q4_k_m"])
    with pytest.raises(UnusableModel, match="choose a type with --isq"):
        parse_types([])


def modelyard(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelyard", "quantize", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_a_folder_gets_uqff_and_a_name_gets_its_kind(checkpoint: Path, tmp_path: Path):
    done = modelyard("-m", str(checkpoint), "--isq", "q4k", "--isq", "8", "--no-readme", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        str(tmp_path / "out" / name) for name in ("q4k-0.uqff", "q8_0-0.uqff")
    ]
    assert "README.md" not in names(tmp_path / "out")
    named = modelyard("-m", str(checkpoint), "--isq", "q4k", "-o", str(tmp_path / "one" / "mine.uqff"))
    assert named.returncode == 0, named.stderr
    assert "mine-0.uqff" in names(tmp_path / "one")
    wrong = modelyard("-m", str(checkpoint), "--isq", "q4k", "-o", str(tmp_path / "x.gguf"), "--format", "uqff")
    assert wrong.returncode == 2
    assert "ends like gguf, but --format is uqff" in wrong.stderr
