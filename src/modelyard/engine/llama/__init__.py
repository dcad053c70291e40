"""llama.cpp, as the engine uses it: the only package of the engine that uses ``llama_binding``.

Every object here belongs to the thread that made it. llama.cpp ends the process on some inputs (a batch larger than
n_batch, a sequence number out of range), so callers check before they call; cheap checks are made here.
"""

from modelyard.engine.llama.adapter import Adapter
from modelyard.engine.llama.backends import backends, missing_backends
from modelyard.engine.llama.batch import Batch
from modelyard.engine.llama.context import Context
from modelyard.engine.llama.context_params import ComputeSettings
from modelyard.engine.llama.control_vector import ControlVector
from modelyard.engine.llama.devices import devices, features
from modelyard.engine.llama.library import can_offload, version
from modelyard.engine.llama.model import InfillTokens, Model
from modelyard.engine.llama.openmp_team import OpenMpTeam
from modelyard.engine.llama.placing import resolve_here
from modelyard.engine.llama.pooled_context import POOLINGS, PooledContext, Pooling
from modelyard.engine.llama.projector import PreparedImage, Projector, SpanEmbeddings, SpanSize
from modelyard.engine.llama.sampler_chain import DrySampler, SamplerChain, active_samplers, is_greedy
from modelyard.engine.llama.special_tokens import SpecialToken
from modelyard.engine.llama.weights import Weights

__all__ = [
    "POOLINGS",
    "Adapter",
    "Batch",
    "ComputeSettings",
    "Context",
    "ControlVector",
    "DrySampler",
    "InfillTokens",
    "Model",
    "OpenMpTeam",
    "PooledContext",
    "Pooling",
    "PreparedImage",
    "Projector",
    "SamplerChain",
    "SpanEmbeddings",
    "SpanSize",
    "SpecialToken",
    "Weights",
    "active_samplers",
    "backends",
    "can_offload",
    "devices",
    "features",
    "is_greedy",
    "missing_backends",
    "resolve_here",
    "version",
]
