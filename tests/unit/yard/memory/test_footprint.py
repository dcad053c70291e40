"""The predicted weights and the whole memory of a model, for headers that the tests make up."""

import pytest

from modelyard.engine.settings import CHECKPOINTS, PARKED_PART
from modelyard.formats.gguf.header import GgufHeader, GgufTensor
from modelyard.hub.select.model_files import ModelFiles
from modelyard.yard.memory.cache_bytes import (
    cell_bytes,
    kv_bytes,
    parked_bytes,
    state_bytes,
)
from modelyard.yard.memory.footprint import PROCESS_BYTES, Footprint, taken_together
from modelyard.yard.memory.prediction import ENGINE_BYTES, ContextSettings, predict
from modelyard.yard.memory.step_bytes import (
    compute_bytes,
    graph_bytes,
    output_bytes,
    sampler_bytes,
    work_bytes,
)
from modelyard.yard.memory.step_operations import Step
from modelyard.yard.memory.weight_bytes import (
    MERGE_BYTES,
    TOKEN_BYTES,
    tensor_bytes,
    twice_held_bytes,
    vocabulary_bytes,
)
from support.gguf_headers import CELLS, F16, MAMBA, WIDTH, attention, header, mamba, shard, tensor

# Prediction heads


def test_prediction_heads_have_no_cells_and_are_not_loaded(tmp_path):
    layers = [tensor(f"blk.{layer}.attn_k.weight", WIDTH, 32, size_bytes=100) for layer in range(3)]
    layers = [GgufTensor(one.name, one.shape, one.type, 100 * at, 100) for at, one in enumerate(layers)]
    with_head = header(*layers, layers=3, nextn_predict_layers=1, file_size=300)
    assert kv_bytes(with_head, CELLS) == CELLS * 2 * (32 + 32) * F16
    assert tensor_bytes(files(tmp_path / "m", with_head, 300)) == 200
    assert tensor_bytes(files(tmp_path / "m", header(*layers, layers=3, file_size=300), 300)) == 300


def test_a_head_between_other_tensors_stays_mapped(tmp_path):
    names = ("blk.0.attn_k.weight", "blk.1.attn_k.weight", "output.weight")
    tensors = [GgufTensor(name, (WIDTH, 32), "F16", 100 * at, 100) for at, name in enumerate(names)]
    model = header(*tensors, layers=2, nextn_predict_layers=1, file_size=300)
    assert tensor_bytes(files(tmp_path / "m", model, 300)) == 300


# Weights


X86, ARM = "x86_64", "aarch64"


def twice(*tensors, processor=X86, gives_back=False):
    """Bytes held twice of a file that has an output of its own, and does not use the embeddings for it."""
    output = tensor("output.weight", 256, 8)
    return twice_held_bytes(header(output, *tensors), 0, processor, gives_back=gives_back)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "IQ4_NL", "MXFP4"])
def test_weights_of_some_types_are_there_twice_unless_the_pages_of_the_file_are_given_back(kind):
    weights = tensor("blk.0.ffn_up.weight", 256, 8, kind=kind, size_bytes=1000)
    assert twice(weights) == 1000
    assert twice(weights, gives_back=True) == 0


@pytest.mark.parametrize(
    "alone",
    [
        tensor("blk.0.ffn_up.weight", 256, 8, kind="Q8_0", size_bytes=1000),
        tensor("blk.0.ffn_up.weight", 256, 12, kind="Q4_0", size_bytes=1000),
        tensor("blk.0.ffn_norm.weight", 256, kind="Q4_0", size_bytes=1000),
        tensor("token_embd.weight", 256, 8, kind="Q4_0", size_bytes=1000),
        tensor("per_layer_token_embd.weight", 256, 8, kind="Q4_0", size_bytes=1000),
    ],
    ids=["another type", "rows in no eights", "a vector", "embeddings", "embeddings of layers"],
)
def test_other_weights_are_there_once(alone):
    assert twice(alone) == 0


def test_on_other_processors_other_types_are_there_twice():
    weights = tensor("blk.0.ffn_up.weight", 256, 8, kind="Q8_0", size_bytes=1000)
    assert twice(weights, processor=ARM) == 1000


@pytest.mark.parametrize("gives_back", [True, False])
def test_embeddings_that_are_the_output_too_are_there_twice(gives_back):
    embeddings = tensor("token_embd.weight", 256, 8, kind="Q4_0", size_bytes=1000)
    assert twice_held_bytes(header(embeddings), 1000, X86, gives_back=gives_back) == 1000


def test_shards_that_are_not_known_are_taken_to_be_like_the_first():
    first = header(
        tensor("blk.0.ffn_up.weight", 256, 8, kind="Q4_K", size_bytes=1000),
        tensor("blk.0.ffn_norm.weight", 256, kind="F32", size_bytes=1000),
    )
    assert twice_held_bytes(shard(first, 3), 6000, X86, gives_back=False) == 3000


def test_embeddings_of_a_first_shard_may_be_the_output_unless_it_has_one():
    embeddings = tensor("token_embd.weight", 256, 8, kind="Q4_K", size_bytes=1000)
    assert twice_held_bytes(shard(header(embeddings), 3), 6000, X86, gives_back=True) == 1000
    untied = header(embeddings, tensor("output.weight", 256, 8, kind="Q6_K", size_bytes=1000))
    assert twice_held_bytes(shard(untied, 3), 6000, X86, gives_back=True) == 0


@pytest.mark.parametrize(("file_type", "are_repacked"), [(15, True), (7, False)], ids=["Q4_K_M", "Q8_0"])
def test_shards_behind_one_without_tensors_are_taken_to_be_of_the_type_that_it_says(file_type, are_repacked):
    first = header(tokens=1000)
    first.metadata.update({"general.file_type": file_type, "llama.embedding_length": 64})
    assert twice_held_bytes(shard(first, 3), 6000, X86, gives_back=False) == 6000 * are_repacked
    # Embeddings of the largest of these types.
    assert twice_held_bytes(shard(first, 3), 6000, X86, gives_back=True) == 1000 * 64 * 34 // 32 * are_repacked


def test_the_vocabulary_takes_heap_for_tokens_and_merges():
    assert vocabulary_bytes(header(tokens=1000, merges=300)) == 1000 * TOKEN_BYTES + 300 * MERGE_BYTES
    assert vocabulary_bytes(GgufHeader(3, {}, (), 0)) == 0


# All of it


def files(path, model, size_bytes=5000):
    return ModelFiles((path,), model, size_bytes, "the only file", "F16")


def test_a_prediction_is_the_sum_of_its_parts(tmp_path):
    big = tensor("blk.0.ffn_up.weight", WIDTH, 96, kind="Q4_K", size_bytes=700)
    recurrent = tensor("blk.1.time_mix_key.weight", WIDTH, WIDTH, size_bytes=300)
    model = header(*attention(), big, recurrent, layers=2, tokens=20_000, merges=10, wkv__head_size=8, file_size=1400)
    predicted = predict(
        files(tmp_path / "m", model, 1400),
        ContextSettings(context_length=300, running=2, sequences=5, batch_tokens=32, threads=2),
        processor=X86,
    )
    # What precedes the tensors does not stay.
    assert predicted.weights_bytes == (700 + 300) + vocabulary_bytes(model)
    parts = (
        kv_bytes(model, 512),
        state_bytes(model, 5),
        output_bytes(model, 5),
        sampler_bytes(model, 2),
        compute_bytes(model, Step(512, 32, 5, 2, has_embeddings=False), 2),
        graph_bytes(model, 32),
        work_bytes(model, 32, 2),
        cell_bytes(model, 512),
        parked_bytes(model, 512, 5),
    )
    assert all(parts)
    assert predicted.context_bytes == sum(parts) + ENGINE_BYTES
    assert predicted.total_bytes == predicted.weights_bytes + predicted.context_bytes


def test_models_on_the_same_file_have_the_same_weights_whatever_link_leads_to_it(tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "copy").write_bytes(b"weights")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "blob")
    blob, link, copy = (
        predict(
            files(tmp_path / name, header()),
            ContextSettings(context_length=tokens, running=1, sequences=1, batch_tokens=32),
        )
        for name, tokens in (("blob", 256), ("link.gguf", 1024), ("copy", 256))
    )
    assert blob.weights_key == link.weights_key != copy.weights_key
    assert blob.weights_bytes == link.weights_bytes
    assert blob.context_bytes < link.context_bytes


def test_a_parked_model_takes_no_pages_of_its_file_unless_another_computes_on_them():
    loaded = Footprint("w", 100, 40).mapping(90)
    assert taken_together([(loaded, True)]) == {"host": 140}
    assert taken_together([(loaded, False)]) == {"host": 10}
    assert taken_together([(loaded, False), (Footprint("w", 100, 7), True)]) == {"host": 107}
    assert Footprint("w", 100, 40).mapping(200).mapped_bytes == 100


def test_models_that_share_only_some_of_their_shards_do_not_share_weights(tmp_path):
    def key(*names):
        paths = tuple(tmp_path / name for name in names)
        model = ModelFiles(paths, header(), 1, "shards", "F16")
        return predict(model, ContextSettings(context_length=1, running=1, sequences=1, batch_tokens=1)).weights_key

    assert key("1", "2") == key("1", "2")
    assert len({key("1", "2"), key("1", "3"), key("1"), key("2", "1")}) == 4


def test_idle_prefixes_may_take_a_quarter_of_the_cache_beside_it(tmp_path):
    model = header(*attention(), layers=1)
    with_them, without = (
        predict(
            files(tmp_path / "m", model),
            ContextSettings(context_length=512, running=1, sequences=1, batch_tokens=32, parks=parks),
        ).context_bytes
        for parks in (True, False)
    )
    assert with_them - without == parked_bytes(model, 512, 1) == (kv_bytes(model, 512) + output_bytes(model, 1)) // 4


def test_a_draft_model_adds_its_context_and_weights_that_may_be_shared():
    drafted = Footprint("w", 100, 50).drafted_by(Footprint("d", 20, 10))
    assert (drafted.weights, drafted.context_bytes, drafted.total_bytes) == ({"w": 100, "d": 20}, 60, 180)
    assert Footprint("w", 100, 50).drafted_by(Footprint("w", 100, 10)).total_bytes == 160


def test_what_was_allocated_raises_a_prediction_and_never_lowers_it():
    predicted = Footprint("w", 100, 50)
    assert predicted.corrected(120, 40) == Footprint("w", 120, 50)
    assert predicted.corrected(80, 60) == Footprint("w", 100, 60)


def test_checkpoints_of_recurrent_states_may_take_a_quarter_of_the_context_and_some_states() -> None:
    model = header(*mamba(), **MAMBA)
    context = state_bytes(model, 5) + output_bytes(model, 5)
    assert parked_bytes(model, 512, 5) == context // PARKED_PART + CHECKPOINTS * state_bytes(model, 1)


def test_a_process_counts_as_long_as_weights_are_in_it_once_for_all_engines_in_it():
    alone = Footprint("w", 100, 40).mapping(90).in_process()
    assert taken_together([(alone, False)]) == {"host": 10 + PROCESS_BYTES}
    assert taken_together([(alone, True), (alone, True)]) == {"host": 180 + PROCESS_BYTES}
