"""From settings to a model that is ready to serve."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from modelyard.engine.chat.chat_format import ChatFormat
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.chat.template_processes import RendersTemplates, TemplateProcesses
from modelyard.engine.input.prompt_encoder import PromptReader, PromptVocabulary
from modelyard.engine.input.prompt_tokenizer import PromptTokenizer
from modelyard.engine.input.tokenize_worker import MAX_TEXT_LENGTH
from modelyard.engine.input.tokenizer_process import TokenizerProcesses
from modelyard.engine.llama import ComputeSettings, Context, Model, resolve_here, version
from modelyard.engine.loading.adapters import LoadedAdapters
from modelyard.engine.loading.vision import Vision
from modelyard.engine.loading.weights import ParkedWeights, WeightsKey, WeightsPool
from modelyard.engine.settings import (
    DEFAULT_CONTEXT,
    DEFAULT_SAMPLING,
    DRAFT_BATCH_TOKENS,
    EngineSettings,
    published_sampling,
)
from modelyard.engine.speculative.draft_model import DraftModel
from modelyard.errors import UnsupportedOperation, UnusableModel
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.placement import PlacedBytes, Placement, added
from modelyard.protocol.prompts import Sampling
from modelyard.system.cores import compute_cores
from modelyard.system.file_digest import contents_digest, samples_digest
from modelyard.system.file_stamp import FileStamp, first_changed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedDraft:
    """A draft model on weights of a ``WeightsPool``."""

    key: WeightsKey
    pool: WeightsPool
    drafter: DraftModel

    def free(self) -> None:
        """Free its context, and the weights where no other engine uses them."""
        self.drafter.context.free()
        self.pool.release(self.key)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model. It belongs to the thread that loaded it.

    Attributes:
        prompts: reads prompts to be computed.
        long_prompts: reads prompts of any length that are only tokenised.
        chat_format: how the model chats; None where it has no usable chat template.
        sampling: defaults for all sampling parameters.
        identity: names weights and settings: KV states can be restored where it is equal.
    """

    key: WeightsKey
    pool: WeightsPool
    model: Model
    context: Context
    prompts: PromptReader
    long_prompts: PromptReader
    chat_format: ChatFormat | None
    sampling: Sampling
    profile: ModelProfile
    identity: str
    draft: LoadedDraft | None
    vision: Vision | None
    tokenizers: TokenizerProcesses
    adapters: LoadedAdapters

    @property
    def drafter(self) -> DraftModel | None:
        """The draft model, if there is one."""
        return None if self.draft is None else self.draft.drafter

    def park(self) -> ParkedWeights:
        """Keep its weights, and those of the draft model, in memory after it is freed."""
        return self.pool.park([self.key] if self.draft is None else [self.key, self.draft.key])

    def free(self) -> None:
        """Free the contexts and the projector, and the weights where no other engine uses them."""
        self.tokenizers.close()
        if self.vision is not None:
            self.vision.free()
        if self.draft is not None:
            self.draft.free()
        self.context.free()
        self.adapters.free()
        self.pool.release(self.key)


@dataclass(frozen=True, slots=True)
class _Allocated:
    """The objects that llama.cpp has allocated for one model."""

    key: WeightsKey
    model: Model
    context: Context
    draft: LoadedDraft | None
    vision: Vision | None
    adapters: LoadedAdapters

    @property
    def device_bytes(self) -> PlacedBytes:
        """Bytes of the weights and of the contexts by device; without the weights of the draft model."""
        contexts = [self.context] if self.draft is None else [self.context, self.draft.drafter.context]
        return added([self.model.device_bytes, *(context.device_bytes for context in contexts)])

    @property
    def context_bytes(self) -> int:
        """Bytes of the contexts, of the projector and of the adapters."""
        draft_bytes = self.draft.drafter.context.allocated_bytes if self.draft else 0
        projector_bytes = self.vision.size_bytes if self.vision else 0
        return self.context.allocated_bytes + draft_bytes + projector_bytes + self.adapters.allocated_bytes


def load(
    settings: EngineSettings,
    pool: WeightsPool,
    on_progress: Callable[[float], bool],
    templates: RendersTemplates | None = None,
    on_files: Callable[[str], object] = lambda _: None,
) -> LoadedModel:
    """Load the weights and make a context on them.

    Args:
        settings: which weights, and how large the context is.
        pool: weights that engines on the same files share.
        on_progress: called with the part read, 0 to 1; returning False cancels the load.
        templates: renders the chat template; None: processes of its own.
        on_files: called with the digest of the files' contents, before llama.cpp reads them.

    Raises:
        UnusableModel: llama.cpp cannot load it, it does not generate text, or the load was cancelled. Everything that
            was allocated is freed.
    """
    started = time.perf_counter()
    check_unchanged(settings.files)
    placement = resolve_here(settings.placement)
    key = pool.key_of(settings.paths, placement)
    on_files(key.contents)
    weights = pool.acquire(key, on_progress)
    try:
        tokenizers = TokenizerProcesses(settings.name, key.paths, stamps=key.stamps)
        model = Model(weights, tokenizers.tokenize)
        context = text_context(settings, model)
        adapters = LoadedAdapters(settings.name, model)
        with ExitStack() as undo:
            undo.callback(adapters.free)
            undo.callback(context.free)
            adapters.hold(settings.adapters)
            draft = vision = None
            if settings.draft:
                draft = _draft(settings, pool, model, context, on_progress)
                undo.callback(draft.free)
            if settings.projector is not None:
                vision = _vision(settings, settings.projector, placement, model, on_progress)
                undo.callback(vision.free)
            check_unchanged(settings.files)
            allocated = _Allocated(key, model, context, draft, vision, adapters)
            loaded = _equip(settings, pool, templates or TemplateProcesses(), allocated, tokenizers)
            undo.pop_all()
    except BaseException:
        pool.release(key)
        raise
    logger.debug("The engine of %s was made in %.2f s", settings.name, time.perf_counter() - started)
    return loaded


def text_context(settings: EngineSettings, model: Model) -> Context:
    """Make the context of a model that generates text.

    Raises:
        UnusableModel: llama.cpp cannot make it, most often for lack of memory.
    """
    return Context(
        model,
        compute_settings(settings),
        length=settings.context_length or min(model.trained_context, DEFAULT_CONTEXT),
        slots=settings.max_seqs + settings.prefix_slots,
        batch_tokens=settings.batch_tokens,
        step_tokens=settings.step_tokens,
        cells=settings.first_cells,
        is_windowed=settings.is_windowed,
    )


def compute_settings(settings: EngineSettings) -> ComputeSettings:
    """Return how the context of an engine's model computes."""
    return ComputeSettings(
        compute_cores(), settings.kv_type, settings.flash_attn, kv_on_host=settings.placement.kv_on_host
    )


def check_unchanged(files: Sequence[FileStamp]) -> None:
    """Refuse files that were changed since they were inspected, since what was found in them may be wrong.

    Raises:
        UnusableModel: it names a file that was changed.
    """
    if (changed := first_changed(files)) is not None:
        raise UnusableModel(f"{changed.name} was changed while it was being loaded. Try again when it is complete.")


def _draft(
    settings: EngineSettings,
    pool: WeightsPool,
    model: Model,
    context: Context,
    on_progress: Callable[[float], bool],
) -> LoadedDraft:
    placement = resolve_here(settings.draft_placement)
    key = pool.key_of(settings.draft, placement)
    weights = pool.acquire(key, lambda _: on_progress(1.0))
    try:
        small = Model(weights)
        if not (small.can_trim and model.can_trim):
            raise UnusableModel(f"'{settings.draft_name}' cannot draft for it: a recurrent state cannot be cut back.")
        if small.vocabulary_digest() != model.vocabulary_digest():
            raise UnusableModel(
                f"'{settings.draft_name}' cannot draft for it: its vocabulary is another one. "
                "Name a model of the same family in draft, or none."
            )
        drafting = Context(
            small,
            replace(compute_settings(settings), kv_on_host=placement.kv_on_host),
            length=context.length,
            slots=settings.max_seqs,
            batch_tokens=DRAFT_BATCH_TOKENS,
        )
    except BaseException:
        pool.release(key)
        raise
    cost = small.size_bytes / model.size_bytes
    return LoadedDraft(key, pool, DraftModel(drafting, settings.max_seqs, cost, small.window))


def _vision(
    settings: EngineSettings, projector: Path, placement: Placement, model: Model, on_progress: Callable[[float], bool]
) -> Vision:
    return Vision.load(
        projector,
        model,
        batch_tokens=settings.batch_tokens,
        device=placement.devices[placement.main_device] if placement.devices else None,
        threads=compute_cores(),
        flash_attn=settings.flash_attn,
        on_progress=lambda _: on_progress(1.0),
        name=settings.name,
        audio_encoder=settings.audio_encoder,
    )


def _equip(
    settings: EngineSettings,
    pool: WeightsPool,
    templates: RendersTemplates,
    allocated: _Allocated,
    tokenizers: TokenizerProcesses,
) -> LoadedModel:
    """Complete what was allocated to a loaded model, with its prompt readers, chat format and profile."""
    model, context = allocated.model, allocated.context
    if not context.has_memory:
        raise UnusableModel("It is not a model that generates text (an encoder, such as an embedding model).")
    chat_format, why_no_chat = _chat_format(settings, model, templates)
    reader = _prompt_reader(settings, allocated, chat_format, why_no_chat)
    identity = _identity(settings, allocated)
    sampling = settings.sampling.over(published_sampling(model.metadata)).over(DEFAULT_SAMPLING)
    prompts, long_prompts = reader(), reader(max_characters=MAX_TEXT_LENGTH)
    return LoadedModel(
        key=allocated.key,
        pool=pool,
        model=model,
        context=context,
        prompts=prompts,
        long_prompts=long_prompts,
        chat_format=chat_format,
        sampling=sampling,
        profile=_profile(settings, allocated, chat_format, identity, sampling),
        identity=identity,
        draft=allocated.draft,
        vision=allocated.vision,
        tokenizers=tokenizers,
        adapters=allocated.adapters,
    )


def _prompt_reader(
    settings: EngineSettings, allocated: _Allocated, chat_format: ChatFormat | None, why_no_chat: str
) -> partial[PromptReader]:
    """Return a function that makes a reader of prompts for the model."""
    model = allocated.model
    return partial(
        PromptReader,
        PromptTokenizer(model),
        chat_format=chat_format,
        why_no_chat=why_no_chat,
        vocabulary=PromptVocabulary(model.vocab_size, model.infill_tokens(), lambda: model.longest_token),
        context_length=allocated.context.length,
        vision=allocated.vision,
        name=settings.name,
    )


def _identity(settings: EngineSettings, allocated: _Allocated) -> str:
    """Return a text that names everything that a saved KV state depends on."""
    context = allocated.context
    # The length of the context counts because some models scale positions by it.
    identity = f"{allocated.key.lasting_contents} {version()} {context.length} {context.kv_format}"
    if settings.projector is not None:
        identity += f" {contents_digest([settings.projector])} {samples_digest([settings.projector])}"
    return identity


def _profile(
    settings: EngineSettings,
    allocated: _Allocated,
    chat_format: ChatFormat | None,
    identity: str,
    sampling: Sampling,
) -> ModelProfile:
    model, vision = allocated.model, allocated.vision
    return ModelProfile(
        identity=identity,
        context_length=allocated.context.length,
        quantization=settings.quantization,
        size_bytes=model.size_bytes,
        fingerprint=fingerprint(settings, model),
        can_chat=chat_format is not None,
        architecture=model.metadata("general.architecture") or "",
        weights_bytes=model.allocated_bytes,
        mapped_bytes=model.mapped_bytes,
        context_bytes=allocated.context_bytes,
        device_bytes=tuple(sorted(allocated.device_bytes.items())),
        weights_key=str(allocated.key),
        can_see=vision is not None and vision.can_see,
        can_hear=vision is not None and vision.can_hear,
        can_reason=chat_format is not None and chat_format.can_reason,
        can_fill=model.infill_tokens() is not None,
        chat_template=settings.chat_template or model.chat_template() or "",
        begin_token=model.begin_token(),
        end_token=model.end_token(),
        sampling=sampling,
    )


def _chat_format(settings: EngineSettings, model: Model, templates: RendersTemplates) -> tuple[ChatFormat | None, str]:
    """Return the chat format of the model, or None and why it has none."""
    template, why_no_chat = _template(settings, model, templates)
    if template is None:
        return None, why_no_chat
    return ChatFormat(
        template,
        model.control_token,
        tool_format=settings.tool_format,
        reasoning_format=settings.reasoning_format,
    ), ""


def _template(settings: EngineSettings, model: Model, templates: RendersTemplates) -> tuple[ChatTemplate | None, str]:
    """Return the chat template, or None and why there is none: the model can still continue text."""
    source = settings.chat_template or model.chat_template()
    if source is None:
        return None, (
            f"The model '{settings.name}' has no chat template: it continues text, at /v1/completions. "
            "To chat with it, set chat_template in its configuration."
        )
    try:
        template = ChatTemplate(
            source,
            bos_token=model.begin_token(),
            eos_token=model.end_token(),
            processes=templates,
            name=settings.name,
        )
        return template, ""
    except UnsupportedOperation as unusable:
        logger.warning("%s: %s", settings.name, unusable)
        return None, str(unusable)


def fingerprint(settings: EngineSettings, model: Model) -> str:
    """Return a text that is equal for equal weights on equal backends, as OpenAI's ``system_fingerprint``."""
    facts = f"{version()} {settings.quantization} {model.size_bytes} {model.metadata('general.name')}"
    return "fp_" + hashlib.sha256(facts.encode()).hexdigest()[:12]
