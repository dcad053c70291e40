from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import FileRequest, ModelFiles, resolve
from support.gguf_writer import STR, U32, Tensor, gguf, model_pairs, model_tensors, shards, tiny_model, write

SAFETENSORS = struct.pack("<Q", 2) + b"{}"


def files(source: str | Path, quant: str | None = None, **other: Any) -> ModelFiles:
    return resolve(FileRequest(str(source), quant=quant, **other))


def refusal(source: str | Path, quant: str | None = None, **other: Any) -> str:
    with pytest.raises(UnusableModel) as refused:
        files(source, quant, **other)
    return str(refused.value)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.gguf", tiny_model({"general.file_type": (U32, 3)}))


# Files


def test_a_file_is_resolved_to_itself(model: Path):
    found = files(model)
    assert found.paths == (model,)
    assert found.header.name == "Tiny"
    assert found.size_bytes == model.stat().st_size
    assert found.quantization == "Q4_1"
    assert found.reason == "tiny.gguf: it is named directly."


def test_paths_may_be_relative_or_at_home(model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(model.parent)
    monkeypatch.setenv("HOME", str(model.parent))
    for source in ("tiny.gguf", "./tiny.gguf", "~/tiny.gguf"):
        assert files(source).paths == (model,)


@pytest.mark.parametrize("source", ["/no/model", "./org/name", "../a/b", "~/org/name", "org/name.gguf", "x/y.PTH"])
def test_what_looks_like_a_path_is_never_a_hub_id(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(source).startswith(f"The path '{source}' does not exist")


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_what_is_no_name_is_refused(source: str):
    assert "is not a model. Name a GGUF file, a folder or a hub id (org/name)." in refusal(source)


def test_names_that_the_system_refuses_are_refused(monkeypatch: pytest.MonkeyPatch):
    assert "is neither a path that exists nor a hub id" in refusal("x" * 5000)
    assert "does not exist (looked for " in refusal("~nobody-by-that-name/x.gguf")


@pytest.mark.parametrize("source", ["tiny", "org/name/file", "org/na me", "org/../name", "org/name@"])
def test_what_is_neither_path_nor_id_says_so(source: str):
    assert refusal(source).startswith(f"'{source}' is neither a path that exists nor a hub id (org/name).")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", SAFETENSORS + b"{}", "This is a part of a checkpoint. Name its folder, which has"),
        (
            "pytorch_model.bin",
            b"PK\x03\x04",
            "This is a PyTorch file, not GGUF. Name the folder of the whole checkpoint",
        ),
        ("notes.txt", b"hello world", "This is not a GGUF file: it starts with 68 65 6c 6c 6f"),
    ],
)
def test_a_file_that_is_not_gguf_says_what_it_is(tmp_path: Path, name: str, content: bytes, message: str):
    assert message in refusal(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        (
            {"general.architecture": (STR, "clip")},
            "This file is a projector (it turns pictures or sound into embeddings)",
        ),
        ({"general.architecture": (STR, "llama"), "general.type": (STR, "adapter")}, "This file is an adapter (LoRA)"),
        ({"general.type": (STR, "imatrix")}, "This file is an importance matrix"),
        ({"general.type": (STR, "poem")}, "This file is of the type 'poem' ('general.type')"),
    ],
)
def test_what_is_no_model_is_refused_when_named(tmp_path: Path, pairs: dict[str, tuple[int, str]], what: str):
    message = refusal(write(tmp_path / "m.gguf", gguf(pairs)))
    assert f"{what}, not a model. Name the model's own GGUF file." in message


def test_an_embedding_model_is_known_by_its_file(tmp_path: Path):
    path = write(tmp_path / "m.gguf", tiny_model({"llama.pooling_type": (U32, 1)}))
    assert resolve(FileRequest(str(path))).kind == "embedding"
    assert resolve(FileRequest(str(path), kind="text")).kind == "text"


@pytest.mark.parametrize(
    ("file_type", "quant"),
    [(3, "4"), (15, "4"), (30, "4"), (38, "q4"), (3, "q4_1"), (15, "Q4_K"), (15, "q4_k_m"), (7, "8"), (1, "fp16")],
)
def test_a_named_file_must_have_the_type_that_is_asked_for(tmp_path: Path, file_type: int, quant: str):
    path = write(tmp_path / "m.gguf", tiny_model({"general.file_type": (U32, file_type)}))
    assert files(path, quant).paths == (path,)


@pytest.mark.parametrize("quant", ["8", "q8_0", "q4_k_m", "iq4_xs"])
def test_else_the_error_names_both(model: Path, quant: str):
    assert f"Its type is Q4_1, but quant = '{quant}' was asked for. Remove quant, or" in refusal(model, quant)


def test_a_publishers_own_mix_is_known_by_its_name(tmp_path: Path):
    path = write(tmp_path / "m-UD-Q4_K_XL.gguf", tiny_model({"general.file_type": (U32, 15)}))
    assert files(path, "ud-q4_k_xl").quantization == "Q4_K_M"


@pytest.mark.parametrize("named", [0, 1])
def test_any_shard_stands_for_all(tmp_path: Path, named: int):
    paths = shards(tmp_path)
    found = files(paths[named])
    assert found.paths == tuple(paths)
    assert found.size_bytes == sum(path.stat().st_size for path in paths)
    assert found.header.architecture == "llama"
    assert found.reason == "tiny-00001-of-00002.gguf and 1 more shards: it is named directly."


def test_a_model_in_one_shard_is_whole(tmp_path: Path):
    (path,) = shards(tmp_path, count=1)
    assert files(path).reason == "tiny-00001-of-00001.gguf: it is named directly."


def test_missing_shards_are_named(tmp_path: Path):
    first, second, third = shards(tmp_path, count=3)
    second.unlink()
    assert refusal(first).endswith(f"1 of 3 shards are missing: {second.name}. Download them too.")
    first.unlink()
    assert "2 of 3 shards are missing" in refusal(third)


def test_every_shard_is_checked(tmp_path: Path):
    first, second = shards(tmp_path)
    os.truncate(second, second.stat().st_size - 100)
    message = refusal(first)
    assert message.startswith(f"{second}: The file is cut off: ")


def test_shards_that_were_renamed_are_refused(tmp_path: Path):
    first, second = shards(tmp_path)
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    assert "By its header this is shard 2 of 2, but by its name 1 of 2." in refusal(first)


def test_a_shard_under_a_name_of_its_own_is_refused(tmp_path: Path):
    first, _ = shards(tmp_path)
    first.rename(tmp_path / "tiny.gguf")
    assert "By its header this is shard 1 of 2, but by its name 1 of 1." in refusal(tmp_path / "tiny.gguf")


def test_shards_of_different_models_are_refused(tmp_path: Path):
    first, second = shards(tmp_path)
    _, _, other = shards(tmp_path / "other", count=3)
    content = bytearray(other.read_bytes())
    for key, value in ((b"split.no", 1), (b"split.count", 2)):
        content[content.index(key) + len(key) + 4] = value
    write(second, bytes(content))
    assert "The shards have 9 tensors together, but must have 11." in refusal(first)
    write(second, first.read_bytes().replace(b"split.no\x02\0\0\0\0", b"split.no\x02\0\0\0\1"))
    assert "is in another shard too" in refusal(first)


def test_a_folder_of_shards_that_cannot_be_listed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, _ = shards(tmp_path)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "The shards cannot be listed: [Errno 13] Permission denied" in refusal(first)


# Folders


def test_the_only_model_of_a_folder_is_taken(tmp_path: Path):
    write(tmp_path / "sub" / "tiny-Q4_1.gguf", tiny_model())
    write(tmp_path / "mmproj.gguf", gguf({"general.architecture": (STR, "clip")}))
    write(tmp_path / ".cache" / "hidden.gguf", b"")
    write(tmp_path / ".hidden.gguf", b"")
    found = files(tmp_path)
    assert found.paths == (tmp_path / "sub" / "tiny-Q4_1.gguf",)
    assert found.reason == "sub/tiny-Q4_1.gguf: it is the only model there."


def test_quant_chooses_in_a_folder(tmp_path: Path):
    for label in ("Q4_K_M", "Q8_0"):
        write(tmp_path / f"tiny-{label}.gguf", tiny_model())
    assert files(tmp_path, "8").paths == (tmp_path / "tiny-Q8_0.gguf",)
    assert refusal(tmp_path).startswith(f"'{tmp_path}': There are 2 models, and no 'quant' selects one.")


def test_a_folders_single_file_without_a_label_is_checked_by_its_header(tmp_path: Path, model: Path):
    assert files(tmp_path, "4").paths == (model,)
    assert "Its type is Q4_1, but quant = '8' was asked for" in refusal(tmp_path, "8")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no model: no file there ends in .gguf"),
        (["a.txt"], "has no model: no file there ends in .gguf"),
        (["model.safetensors"], "has safetensors weights, but no config.json: it is no checkpoint"),
        (["a.safetensors"], "has safetensors files (a.safetensors), but no model*.safetensors at its top"),
        (["pytorch_model.bin"], "has only PyTorch weights (pytorch_model.bin)"),
        (["q4k-0.uqff"], "has only quantised weights in UQFF: choose some with quant or from_uqff"),
    ],
)
def test_a_folder_without_gguf_says_what_is_there(tmp_path: Path, names: list[str], message: str):
    for name in names:
        write(tmp_path / name, SAFETENSORS)
    assert message in refusal(tmp_path)


def test_folders_are_not_searched_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "1" / "2" / "3" / "4" / "deep.gguf", tiny_model())
    assert "has no model" in refusal(tmp_path)
    monkeypatch.setattr("modelyard.hub.sources.folder.MAX_FILES", 2)
    for number in range(3):
        write(tmp_path / f"{number}.txt", b"")
    assert "There are more than 2 files. Name the folder of one model." in refusal(tmp_path)


def test_a_folder_that_cannot_be_listed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    assert f"{tmp_path}: The folder cannot be listed: Permission denied." in refusal(tmp_path)


# What is asked for


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"kind": "diffusion"}, "kind = 'diffusion' is not supported"),
        ({"kind": "speech"}, "kind = 'speech' is not supported"),
        ({"quant": "7"}, "quant = '7' is not a quantisation level"),
    ],
)
def test_what_this_version_cannot_do_is_refused_before_anything_is_looked_up(asked: dict[str, Any], message: str):
    assert refusal("no/such/model.gguf", **asked).startswith(message)


def test_a_text_model_may_be_called_one(model: Path):
    assert files(model, kind="text").paths == (model,)


def test_a_file_named_with_a_type_but_without_one_inside_is_judged_by_its_tensors(tmp_path: Path):
    pairs = model_pairs()
    del pairs["general.file_type"]
    path = write(tmp_path / "m.gguf", gguf(pairs, [*model_tensors(), Tensor("extra.weight", (32, 1))]))
    assert files(path).quantization == "F32"
