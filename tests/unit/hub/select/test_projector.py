from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import FileRequest, ModelFiles, Progress, Stores, plan_files, read_header
from modelyard.hub.select.gguf import FileChoice
from modelyard.hub.select.modalities import Modalities
from modelyard.hub.select.model_files import read_files
from modelyard.hub.select.projector import TriedProjectors, choose_projector, with_projector
from support.gguf_writer import BOOL, F32, STR, U32, Tensor, array, gguf, tiny_model, write

MMPROJ = "mmproj-tiny-vision-F16.gguf"


def _go_on(_: Progress) -> bool:
    return True


def projector(changes: dict[str, tuple[int, Any] | None] | None = None, tensors: list[Tensor] | None = None) -> bytes:
    pairs: dict[str, tuple[int, Any] | None] = {
        "general.architecture": (STR, "clip"),
        "general.type": (STR, "mmproj"),
        "clip.has_vision_encoder": (BOOL, True),
        "clip.projector_type": (STR, "gemma3"),
        "clip.vision.image_size": (U32, 32),
        "clip.vision.patch_size": (U32, 4),
        "clip.vision.embedding_length": (U32, 32),
        "clip.vision.attention.head_count": (U32, 2),
        "clip.vision.block_count": (U32, 1),
        "clip.vision.attention.layer_norm_epsilon": (F32, 1e-6),
        "clip.vision.image_mean": array(F32, [0.5] * 3),
        "clip.vision.image_std": array(F32, [0.5] * 3),
    }
    pairs |= changes or {}
    weights = [Tensor("v.blk.0.attn_q.weight", (32, 32)), Tensor("v.blk.0.attn_q.bias", (32,))]
    return gguf({key: value for key, value in pairs.items() if value is not None}, tensors or weights)


def chosen(*names: str, model: str = "m-Q4_K_M.gguf", mmproj: str | None = None) -> str:
    return choose_projector([model, *names], model, mmproj).name


def test_bf16_goes_before_f16_before_f32_before_the_rest() -> None:
    names = ["mmproj-m-Q8_0.gguf", "mmproj-m-F32.gguf", "mmproj-m-F16.gguf", "mmproj-m-BF16.gguf"]
    for best in reversed(range(4)):
        assert chosen(*names[: best + 1]) == names[best]


def test_none_is_taken_where_two_match_equally_well() -> None:
    choice = choose_projector(["a.gguf", "mmproj-x-f16.gguf", "y-mmproj-F16.gguf"], "a.gguf")
    assert choice.name == ""
    assert "2 projectors match equally well: mmproj-x-f16.gguf, y-mmproj-F16.gguf" in choice.reason


def test_the_model_s_own_folder_goes_first() -> None:
    names = ["a/m.gguf", "a/mmproj-F32.gguf", "b/mmproj-BF16.gguf", "mmproj-BF16.gguf"]
    assert choose_projector(names, "a/m.gguf").name == "a/mmproj-F32.gguf"
    assert choose_projector(["a/m.gguf", "mmproj-BF16.gguf"], "a/m.gguf").name == "mmproj-BF16.gguf"


def test_a_projector_that_is_named_after_the_model_goes_before_others() -> None:
    assert chosen("mmproj-x-BF16.gguf", "m-mmproj-f16.gguf") == "m-mmproj-f16.gguf"
    assert chosen("mmproj-m-BF16.gguf", "mmproj-m2-BF16.gguf", model="m2-Q8_0.gguf") == "mmproj-m2-BF16.gguf"


def test_a_name_says_which() -> None:
    assert chosen("mmproj-F16.gguf", "vision.gguf", mmproj="vision.gguf") == "vision.gguf"
    with pytest.raises(UnusableModel, match=r"no projector 'other.gguf'. There are: mmproj-F16.gguf."):
        chosen("mmproj-F16.gguf", mmproj="other.gguf")


def test_other_files_are_no_projectors() -> None:
    assert chosen("mmproj.json", "mymmprojector.gguf", "imatrix.gguf") == ""


def planned(source: Path, **wanted: Any) -> str:
    return plan_files(FileRequest(str(source), **wanted), Stores()).projector.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "m" / "tiny-F16.gguf", tiny_model())
    write(tmp_path / "m" / "mmproj-tiny-F16.gguf", projector())
    return tmp_path / "m"


def test_a_projector_is_found_beside_its_model_unless_text_is_wanted(folder: Path) -> None:
    assert planned(folder) == planned(folder, kind="multimodal") == "mmproj-tiny-F16.gguf"
    assert planned(folder / "tiny-F16.gguf") == "mmproj-tiny-F16.gguf"
    assert planned(folder, kind="text") == ""


def test_beside_a_file_of_several_models_a_projector_is_taken_that_is_named_after_it(folder: Path) -> None:
    write(folder / "other-F16.gguf", tiny_model())
    assert planned(folder / "tiny-F16.gguf") == "mmproj-tiny-F16.gguf"
    assert planned(folder / "other-F16.gguf") == ""


def test_multimodal_without_a_projector_is_refused(folder: Path) -> None:
    (folder / "mmproj-tiny-F16.gguf").unlink()
    assert planned(folder) == ""
    with pytest.raises(UnusableModel, match=r"kind = 'multimodal' needs a projector \(mmproj\). There is no projector"):
        planned(folder, kind="multimodal")


def test_a_projector_that_does_not_fit_its_model_is_refused_and_ends_nothing_else(
    vision_models: dict[str, Path],
) -> None:
    folder = vision_models["gemma3"]
    model = folder / "tiny-vision-F16.gguf"
    # A transposed matrix: mtmd loads it, and aborts the process when it reserves the multiplication.
    raw = bytearray((folder / MMPROJ).read_bytes())
    name = b"mm.input_projection.weight"
    at = raw.index(name) + len(name)
    assert struct.unpack_from("<IQQ", raw, at) == (2, 64, 32)
    struct.pack_into("<QQ", raw, at + 4, 32, 64)
    broken = write(folder.parent / "broken" / "mmproj-tiny-F16.gguf", bytes(raw))
    files = with_projector(read_model(model), broken, is_required=True)
    with pytest.raises(UnusableModel, match="mmproj-tiny-F16") as refused:
        TriedProjectors().check(files, _go_on)
    assert "does not work with tiny-vision-F16.gguf. The program try_projector ended with signal" in str(refused.value)
    assert str(broken.parent) not in str(refused.value)
    TriedProjectors().check(with_projector(files, folder / MMPROJ, is_required=True), _go_on)


def read_model(path: Path) -> ModelFiles:
    return read_files(path.parent, FileChoice((path.name,), "", "F16"), None, "auto")


def test_a_model_is_no_projector(folder: Path) -> None:
    files = read_model(folder / "tiny-F16.gguf")
    with pytest.raises(UnusableModel, match="This file is no projector"):
        with_projector(files, folder / "tiny-F16.gguf", is_required=False)


# An audio encoder declared as the encoder of images.
HEARS: dict[str, tuple[int, Any] | None] = {
    "clip.has_vision_encoder": None,
    "clip.has_audio_encoder": (BOOL, True),
    "clip.projector_type": (STR, "qwen2a"),
    "clip.audio.embedding_length": (U32, 32),
    "clip.audio.attention.head_count": (U32, 2),
    "clip.audio.block_count": (U32, 1),
    "clip.audio.num_mel_bins": (U32, 128),
}


def test_a_projector_of_nothing_is_left_aside_unless_it_was_asked_for(folder: Path) -> None:
    files = read_model(folder / "tiny-F16.gguf")
    for changes in ({"clip.has_vision_encoder": None}, HEARS | {"clip.projector_type": (STR, "pockettts_spkenc")}):
        nothing = write(folder / "mmproj-a.gguf", projector(changes))
        assert with_projector(files, nothing, is_required=False).projector is None
        with pytest.raises(UnusableModel, match="takes neither images nor sound"):
            with_projector(files, nothing, is_required=True)


@pytest.mark.parametrize(
    ("changes", "modalities"),
    [
        ({}, Modalities(has_vision=True)),
        (HEARS, Modalities(has_audio=True, audio_encoder="qwen2a")),
        (
            HEARS | {"clip.has_vision_encoder": (BOOL, True)},
            Modalities(has_vision=True, has_audio=True, audio_encoder="qwen2a"),
        ),
        (
            HEARS
            | {"clip.has_vision_encoder": (BOOL, True), "clip.projector_type": None}
            | {"clip.vision.projector_type": (STR, "gemma4v"), "clip.audio.projector_type": (STR, "gemma4a")},
            Modalities(has_vision=True, has_audio=True, audio_encoder="gemma4a"),
        ),
        # llama.cpp ignores the audio encoder of Gemma 3n.
        (
            HEARS
            | {"clip.has_vision_encoder": (BOOL, True), "clip.projector_type": None}
            | {"clip.vision.projector_type": (STR, "gemma3nv"), "clip.audio.projector_type": (STR, "gemma3na")},
            Modalities(has_vision=True),
        ),
    ],
)
def test_what_a_model_takes_is_told_from_its_projector(
    folder: Path, changes: dict[str, tuple[int, Any] | None], modalities: Modalities
) -> None:
    path = write(folder / "mmproj-a.gguf", projector(changes))
    files = with_projector(read_model(folder / "tiny-F16.gguf"), path, is_required=True)
    assert (files.kind, files.modalities) == ("multimodal", modalities)


def test_most_encoders_take_16_khz() -> None:
    assert [Modalities(audio_encoder=name).sample_rate for name in ("voxtral", "mimo_audio")] == [16_000, 24_000]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip.audio.attention.head_count": (U32, 5)}, "which does not divide among 5 attention heads"),
        ({"clip.audio.attention.head_count": (U32, 0)}, "which does not divide among 0 attention heads"),
        ({"clip.audio.block_count": (U32, 10**6)}, "'clip.audio.block_count' is 1000000"),
        ({"clip.audio.num_mel_bins": (U32, 0)}, "'clip.audio.num_mel_bins' is 0"),
        ({"clip.audio.num_mel_bins": (F32, 1.0)}, "'clip.audio.num_mel_bins' has the type f32, but must be u32"),
        (
            {"clip.projector_type": (STR, "ultravox"), "clip.audio.projector.stack_factor": (U32, 8)},
            r"ends the process on sound of this projector \('ultravox'\): it counts on 187 tokens .* and computes 188",
        ),
        (
            {"clip.projector_type": (STR, "voxtral"), "clip.audio.projector.stack_factor": (U32, 4)},
            r"\('voxtral'\): it counts on 187 tokens for a window of 30 s, and computes 188",
        ),
        (
            {"clip.projector_type": (STR, "meralion"), "clip.audio.projector.stack_factor": (U32, 0)},
            "'clip.audio.projector.stack_factor' is 0",
        ),
    ],
)
def test_ears_that_mtmd_would_end_the_process_on_are_refused(
    tmp_path: Path, changes: dict[str, tuple[int, Any] | None], message: str
) -> None:
    with pytest.raises(UnusableModel, match=message):
        read_header(write(tmp_path / "p.gguf", projector(HEARS | changes)))


def test_ears_whose_tokens_come_out_even_are_taken(tmp_path: Path) -> None:
    for kind, stack in (("meralion", 15), ("ultravox", 6), ("glma", 4), ("musicflamingo", 1)):
        changes = {"clip.projector_type": (STR, kind), "clip.audio.projector.stack_factor": (U32, stack)}
        assert read_header(write(tmp_path / "p.gguf", projector(HEARS | changes))).is_projector


def test_a_usable_header_is_taken(tmp_path: Path) -> None:
    assert read_header(write(tmp_path / "p.gguf", projector())).is_projector


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip.vision.image_mean": None}, "'clip.vision.image_mean' must be an array of three f32"),
        ({"clip.vision.image_std": (U32, 1)}, "'clip.vision.image_std' must be an array of three f32"),
        ({"clip.vision.patch_size": (U32, 0)}, "'clip.vision.patch_size' is 0"),
        ({"clip.vision.patch_size": (STR, "4")}, "'clip.vision.patch_size' has the type str, but must be u32"),
        ({"clip.vision.patch_size": (U32, 64)}, "Images of 32 pixels a side cannot be cut into patches of 64"),
        ({"clip.vision.image_size": (U32, 2**31)}, "cannot be cut into patches"),
        ({"clip.vision.attention.head_count": (U32, 5)}, "which does not divide among 5 attention heads"),
        ({"clip.vision.block_count": (U32, 10**6)}, "'clip.vision.block_count' is 1000000"),
        ({"clip.vision.attention.layer_norm_epsilon": (U32, 1)}, "has the type u32, but must be f32"),
        ({"clip.has_vision_encoder": (U32, 1)}, "has the type u32, but must be bool"),
        ({"clip.vision.embedding_length": (U32, 64)}, "has rows of 32, but the encoder is 64 wide"),
    ],
)
def test_what_mtmd_would_end_the_process_on_is_refused(
    tmp_path: Path, changes: dict[str, tuple[int, Any] | None], message: str
) -> None:
    with pytest.raises(UnusableModel) as refused:
        read_header(write(tmp_path / "p.gguf", projector(changes)))
    assert message in str(refused.value)


def test_a_bias_of_another_length_than_its_weights_yield_is_refused(tmp_path: Path) -> None:
    tensors = [Tensor("v.blk.0.ffn_up.weight", (32, 64)), Tensor("v.blk.0.ffn_up.bias", (48,))]
    with pytest.raises(UnusableModel, match="has 48 values, which is not what its weights yield"):
        read_header(write(tmp_path / "p.gguf", projector(tensors=tensors)))
