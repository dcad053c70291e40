"""The models in a folder of several."""

from __future__ import annotations

from modelyard.hub.select.folder_models import WHOLE_FOLDER, folder_models


def test_each_gguf_model_is_one_with_its_shards_and_without_what_belongs_to_it() -> None:
    names = ["b.gguf", "a/big-00001-of-00002.gguf", "a/big-00002-of-00002.gguf", "mmproj-b-F16.gguf", "b.imatrix.gguf"]
    assert folder_models([*names, "README.md"]) == ("a/big-00001-of-00002.gguf", "b.gguf")


def test_a_folder_that_is_one_model_is_that_model() -> None:
    assert folder_models(["a.gguf", "mmproj-a.gguf"]) == (WHOLE_FOLDER,)
    assert folder_models(["config.json", "model.safetensors", "a-Q4_0.gguf", "a-Q8_0.gguf"]) == (WHOLE_FOLDER,)
    assert folder_models(["config.json", "q4k-0.uqff", "residual.safetensors"]) == (WHOLE_FOLDER,)


def test_checkpoints_in_folders_of_their_own_are_models() -> None:
    names = ["x/config.json", "x/model-00001-of-00002.safetensors", "x/x-Q4_0.gguf", "y.gguf", "z/config.json"]
    assert folder_models(names) == ("x", "y.gguf")


def test_a_folder_without_models_has_none() -> None:
    assert folder_models([]) == ()
    assert folder_models(["README.md", "mmproj-a.gguf", "config.json"]) == ()
