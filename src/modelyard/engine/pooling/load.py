"""From settings to a model that is ready to embed or to rank."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelyard.engine.input.tokenizer_process import TokenizerProcesses
from modelyard.engine.llama import POOLINGS, Model, PooledContext, Pooling, resolve_here
from modelyard.engine.loading.load import check_unchanged, compute_settings, fingerprint
from modelyard.engine.loading.weights import ParkedWeights, WeightsKey, WeightsPool
from modelyard.engine.pooling.embed_input import InputReader
from modelyard.engine.pooling.rank_input import PairReader
from modelyard.engine.pooling.shape import embedding_shape
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.placement import added

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedPoolingModel:
    """A loaded model that embeds or ranks. It belongs to the thread that loaded it."""

    key: WeightsKey
    pool: WeightsPool
    model: Model
    context: PooledContext
    inputs: InputReader | PairReader
    profile: ModelProfile
    tokenizers: TokenizerProcesses

    def park(self) -> ParkedWeights:
        """Keep its weights in memory after it is freed."""
        return self.pool.park([self.key])

    def free(self) -> None:
        """Free the context, and the weights where no other engine uses them."""
        self.tokenizers.close()
        self.context.free()
        self.pool.release(self.key)


def load_pooling_model(
    settings: EngineSettings,
    pool: WeightsPool,
    on_progress: Callable[[float], bool],
    on_files: Callable[[str], object] = lambda _: None,
) -> LoadedPoolingModel:
    """Load the weights and make a context that pools on them.

    Args:
        settings: which weights, and how long an input may be.
        pool: weights that engines on the same files share.
        on_progress: called with the part read, 0 to 1; returning False cancels the load.
        on_files: called with the digest of the files' contents, before llama.cpp reads them.

    Raises:
        UnusableModel: llama.cpp cannot load it, it neither embeds nor ranks, or the load was cancelled. Everything that
            was allocated is freed.
    """
    started = time.perf_counter()
    check_unchanged(settings.files)
    key = pool.key_of(settings.paths, resolve_here(settings.placement))
    on_files(key.contents)
    weights = pool.acquire(key, on_progress)
    try:
        tokenizers = TokenizerProcesses(settings.name, key.paths, stamps=key.stamps)
        model = Model(weights, tokenizers.tokenize)
        context, longest = pooled_context(settings, model)
        try:
            check_unchanged(settings.files)
            inputs = _reader(settings, model, longest)
        except BaseException:
            context.free()
            raise
    except BaseException:
        pool.release(key)
        raise
    profile = ModelProfile(
        context_length=longest,
        quantization=settings.quantization,
        size_bytes=model.size_bytes,
        fingerprint=fingerprint(settings, model),
        can_chat=False,
        weights_bytes=model.allocated_bytes,
        mapped_bytes=model.mapped_bytes,
        context_bytes=context.allocated_bytes,
        device_bytes=tuple(sorted(added([model.device_bytes, context.device_bytes]).items())),
        weights_key=str(key),
        dimensions=0 if settings.kind == "rerank" else context.dimensions,
    )
    logger.debug("The engine of %s was made in %.2f s", settings.name, time.perf_counter() - started)
    return LoadedPoolingModel(key, pool, model, context, inputs, profile, tokenizers)


def _reader(settings: EngineSettings, model: Model, longest: int) -> InputReader | PairReader:
    if settings.kind == "rerank":
        return PairReader(model, vocab_size=model.vocab_size, longest=longest)
    return InputReader(
        lambda text, add_special: model.tokenize(text, add_special=add_special, parse_special=False),
        vocab_size=model.vocab_size,
        longest=longest,
    )


def pooled_context(settings: EngineSettings, model: Model) -> tuple[PooledContext, int]:
    """Return a context that pools as the file says, and the limit of tokens of one input.

    Files of rerankers rarely declare their pooling. Where a file declares none, causal decoders take their last token,
    which alone has seen all others; other models take the mean.
    """
    if settings.kind == "rerank":
        return _context(settings, model, "rank", is_whole=True)
    declared = POOLINGS.get(model.pooling)
    if declared in (None, "last") and model.is_causal and not model.is_encoder_with_memory:
        context, longest = _context(settings, model, "last", is_whole=False)
        if context.has_memory:
            return context, longest
        # Only the context shows that it is an encoder: files need not say so.
        context.free()
    return _context(settings, model, declared or "mean", is_whole=True)


def _context(settings: EngineSettings, model: Model, pooling: Pooling, *, is_whole: bool) -> tuple[PooledContext, int]:
    shape = embedding_shape(model.trained_context, settings.context_length, settings.batch_tokens, is_whole=is_whole)
    context = PooledContext(
        model,
        compute_settings(settings),
        pooling=pooling,
        length=max(shape.longest, settings.batch_tokens),
        slots=settings.max_seqs,
        step_tokens=shape.step_tokens,
    )
    return context, shape.longest
