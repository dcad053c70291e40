"""llama.cpp, as the engine uses it: the only package that imports llama_cpp.

Every object here belongs to the thread that made it. llama.cpp ends the process on some inputs (a batch larger than
n_batch, a sequence number out of range), so callers check before they call; where the check is cheap it is here.
"""

from modelyard.engine.llama.batch import Batch
from modelyard.engine.llama.context import Context
from modelyard.engine.llama.library import buffer_bytes, can_offload, version
from modelyard.engine.llama.model import Model, Weights
from modelyard.engine.llama.projector import Embeddings, PreparedImage, Projector, Size
from modelyard.engine.llama.sampler_chain import SamplerChain, is_greedy

__all__ = [
    "Batch",
    "Context",
    "Embeddings",
    "Model",
    "PreparedImage",
    "Projector",
    "SamplerChain",
    "Size",
    "Weights",
    "buffer_bytes",
    "can_offload",
    "is_greedy",
    "version",
]
