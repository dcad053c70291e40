"""Headers of models that tests of predicted memory make up."""

from modelyard.formats.gguf.header import GgufArray, GgufHeader, GgufTensor
from modelyard.yard.memory.step_bytes import compute_bytes
from modelyard.yard.memory.step_operations import Step

WIDTH = 64
F16 = 2
F32 = 4
CELLS = 256


def tensor(name, *shape, kind="F16", size_bytes=0):
    return GgufTensor(name, shape, kind, 0, size_bytes)


def header(*tensors, layers=1, tokens=0, merges=0, file_size=0, **numbers):
    """A model of one layer; ``numbers`` are keys of its architecture, with ``__`` for a dot."""
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.embedding_length": WIDTH,
        "tokenizer.ggml.tokens": GgufArray("str", tokens),
        "tokenizer.ggml.merges": GgufArray("str", merges),
    }
    own = {f"llama.{key.replace('__', '.')}": value for key, value in numbers.items()}
    return GgufHeader(3, metadata | own, tensors, file_size)


def shard(first, count):
    """The first of several files."""
    return GgufHeader(3, {**first.metadata, "split.no": 0, "split.count": count}, first.tensors, first.file_size)


def renamed(model, architecture):
    """These files with another architecture."""
    metadata = {key.replace("llama.", f"{architecture}."): value for key, value in model.metadata.items()}
    return GgufHeader(3, {**metadata, "general.architecture": architecture}, model.tensors, model.file_size)


def attention(layer=0, key=32, value=16):
    return (
        tensor(f"blk.{layer}.attn_k.weight", WIDTH, key),
        tensor(f"blk.{layer}.attn_v.weight", WIDTH, value),
    )


def dense(layer=0, wide=200):
    return (
        *attention(layer),
        tensor(f"blk.{layer}.attn_q.weight", WIDTH, WIDTH),
        tensor(f"blk.{layer}.attn_output.weight", WIDTH, WIDTH),
        tensor(f"blk.{layer}.ffn_gate.weight", WIDTH, wide),
        tensor(f"blk.{layer}.ffn_up.weight", WIDTH, wide),
        tensor(f"blk.{layer}.ffn_down.weight", wide, WIDTH),
    )


def mamba(layer=0, inner=100, state=16, groups=2):
    channels = 2 * inner + 2 * groups * state
    names = ("ssm_in", WIDTH, channels), ("ssm_conv1d", 4, channels), ("ssm_out", inner, WIDTH)
    return [tensor(f"blk.{layer}.{name}.weight", *shape) for name, *shape in names]


MAMBA = {"ssm__inner_size": 100, "ssm__state_size": 16, "ssm__group_count": 2, "ssm__conv_kernel": 4}


def computing(model, cells=CELLS, tokens=32, running=1, **how):
    """What the steps of a model take that has no sequences beside those that run."""
    return compute_bytes(model, Step(cells, tokens, running, running, **{"has_embeddings": False, **how}), running)
