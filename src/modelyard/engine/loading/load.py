"""From settings to a model that is ready to serve."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelyard.engine.chat.chat_format import ChatFormat
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.chat.template_processes import RendersTemplates, TemplateProcesses
from modelyard.engine.input.prompt_encoder import PromptReader
from modelyard.engine.input.tokenize_worker import MAX_TEXT_LENGTH
from modelyard.engine.input.tokenizer_process import TokenizerProcesses
from modelyard.engine.llama import Context, Model, can_offload, check_devices, version
from modelyard.engine.loading.vision import Vision
from modelyard.engine.loading.weights import ParkedWeights, WeightsKey, WeightsPool
from modelyard.engine.settings import DEFAULT_CONTEXT, DEFAULT_SAMPLING, DRAFT_BATCH_TOKENS, EngineSettings
from modelyard.engine.speculative.draft_model import DraftModel
from modelyard.errors import UnsupportedOperation, UnusableModel
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Sampling
from modelyard.system.cores import usable_cores
from modelyard.system.file_digest import contents_digest, samples_digest
from modelyard.system.file_stamp import FileStamp, first_changed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedDraft:
    """A draft model on borrowed weights."""

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
        prompts, long_prompts: read prompts for the model, and any for those who only ask for their tokens.
        dialogue: how it talks; None where it has no usable chat template.
        sampling: defaults for what a request leaves unsaid, each with a value.
        identity: names weights and settings: equal where one engine's KV states can be restored in the other.
    """

    key: WeightsKey
    pool: WeightsPool
    model: Model
    context: Context
    prompts: PromptReader
    long_prompts: PromptReader
    dialogue: ChatFormat | None
    sampling: Sampling
    profile: ModelProfile
    identity: str
    draft: LoadedDraft | None
    vision: Vision | None
    tokenizers: TokenizerProcesses

    @property
    def drafter(self) -> DraftModel | None:
        """What guesses for it, if anything does."""
        return None if self.draft is None else self.draft.drafter

    def park(self) -> ParkedWeights:
        """Hold its weights, and those of the draft model, beyond its end."""
        return self.pool.park([self.key] if self.draft is None else [self.key, self.draft.key])

    def free(self) -> None:
        """Free the contexts and the projector, and the weights where no other engine uses them."""
        self.tokenizers.close()
        if self.vision is not None:
            self.vision.free()
        if self.draft is not None:
            self.draft.free()
        self.context.free()
        self.pool.release(self.key)


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
        pool: where engines on the same files meet.
        on_progress: called with the part read, 0 to 1; returning False gives the load up.
        templates: where its chat template is rendered; None: in processes of its own.
        on_files: called with what names the contents of its files, before llama.cpp reads them.

    Raises:
        UnusableModel: llama.cpp cannot load it, it does not generate text, or the load was given up. Nothing that was
            allocated is left.
    """
    started = time.perf_counter()
    check_unchanged(settings.files)
    key = WeightsKey.of(settings.paths, *_placement(settings.offload, settings.device_layers))
    on_files(key.contents)
    weights = pool.acquire(key, on_progress)
    try:
        tokenizers = TokenizerProcesses(settings.name, key.paths, stamps=key.stamps)
        model = Model(weights, tokenizers.tokenize)
        context = Context(
            model,
            length=settings.context_length or min(model.trained_context, DEFAULT_CONTEXT),
            slots=settings.max_seqs + settings.prefix_slots,
            batch_tokens=settings.batch_tokens,
            kv_type=settings.kv_type,
            flash_attn=settings.flash_attn,
            threads=usable_cores(),
        )
        with ExitStack() as undo:
            undo.callback(context.free)
            draft = vision = None
            if settings.draft:
                draft = _draft(settings, pool, model, context, on_progress)
                undo.callback(draft.free)
            if settings.projector is not None:
                vision = _vision(settings, settings.projector, key.gpu_layers, model, on_progress)
                undo.callback(vision.free)
            check_unchanged(settings.files)
            resident = _equip(
                settings, pool, templates or TemplateProcesses(), key, model, context, draft, vision, tokenizers
            )
            undo.pop_all()
    except BaseException:
        pool.release(key)
        raise
    logger.info("Loaded %s in %.2f s", settings.name, time.perf_counter() - started)
    return resident


def check_unchanged(files: Sequence[FileStamp]) -> None:
    """Refuse files that are not those that were looked into: what was found in them is not true of these.

    Raises:
        UnusableModel: it names one of them.
    """
    if (changed := first_changed(files)) is not None:
        raise UnusableModel(f"{changed.name} was changed while it was being loaded. Try again when it is complete.")


def _placement(offload: bool, device_layers: tuple[int, ...] | None) -> tuple[int, tuple[int, ...]]:
    """How many layers go to accelerators, and how many of them to each.

    Raises:
        UnusableModel: layers are given to an accelerator that there is none of.
    """
    if not offload or device_layers is None or not any(device_layers):
        return (-1 if offload and device_layers is None and can_offload() else 0), ()
    check_devices(device_layers)
    return sum(device_layers), device_layers


def _draft(
    settings: EngineSettings,
    pool: WeightsPool,
    model: Model,
    context: Context,
    on_progress: Callable[[float], bool],
) -> LoadedDraft:
    key = WeightsKey.of(settings.draft, *_placement(settings.offload, settings.draft_device_layers))
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
            length=context.length,
            slots=settings.max_seqs,
            batch_tokens=DRAFT_BATCH_TOKENS,
            threads=usable_cores(),
            kv_type=settings.kv_type,
            flash_attn=settings.flash_attn,
        )
    except BaseException:
        pool.release(key)
        raise
    return LoadedDraft(key, pool, DraftModel(drafting, settings.max_seqs, small.size_bytes / model.size_bytes))


def _vision(
    settings: EngineSettings, projector: Path, gpu_layers: int, model: Model, on_progress: Callable[[float], bool]
) -> Vision:
    return Vision.load(
        projector,
        model,
        batch_tokens=settings.batch_tokens,
        offload=gpu_layers != 0,
        threads=usable_cores(),
        flash_attn=settings.flash_attn,
        on_progress=lambda _: on_progress(1.0),
        name=settings.name,
        audio_encoder=settings.audio_encoder,
    )


def _equip(
    settings: EngineSettings,
    pool: WeightsPool,
    templates: RendersTemplates,
    key: WeightsKey,
    model: Model,
    context: Context,
    draft: LoadedDraft | None,
    vision: Vision | None,
    tokenizers: TokenizerProcesses,
) -> LoadedModel:
    if not context.has_memory:
        raise UnusableModel("It is not a model that generates text (an encoder, such as an embedding model).")
    template, why_no_chat = _template(settings, model, templates)
    dialogue = (
        None
        if template is None
        else ChatFormat(
            template,
            model.control_token,
            tool_format=settings.tool_format,
            reasoning_format=settings.reasoning_format,
        )
    )
    reader = partial(
        PromptReader,
        lambda text, add_special: model.tokenize(text, add_special=add_special),
        dialogue=dialogue,
        why_no_chat=why_no_chat,
        begin_token=model.begin_token(),
        vocab_size=model.vocab_size,
        context_length=context.length,
        infill=model.infill_tokens(),
        vision=vision,
        name=settings.name,
        longest_token=lambda: model.longest_token,
    )
    # Some models scale positions by the length of the context.
    identity = f"{key.lasting_contents} {version()} {context.length} {context.kv_format}"
    if settings.projector is not None:
        identity += f" {contents_digest([settings.projector])} {samples_digest([settings.projector])}"
    profile = ModelProfile(
        identity=identity,
        context_length=context.length,
        quantization=settings.quantization,
        size_bytes=model.size_bytes,
        fingerprint=fingerprint(settings, model),
        can_chat=template is not None,
        architecture=model.metadata("general.architecture") or "",
        weights_bytes=model.allocated_bytes,
        context_bytes=context.allocated_bytes
        + (draft.drafter.context.allocated_bytes if draft else 0)
        + (vision.size_bytes if vision else 0),
        weights_key=str(key),
        can_see=vision is not None and vision.can_see,
        can_hear=vision is not None and vision.can_hear,
        can_reason=dialogue is not None and dialogue.can_reason,
        can_fill=model.infill_tokens() is not None,
    )
    sampling = settings.sampling.over(_published_sampling(model)).over(DEFAULT_SAMPLING)
    prompts, long_prompts = reader(), reader(longest_text=MAX_TEXT_LENGTH)
    return LoadedModel(
        key,
        pool,
        model,
        context,
        prompts,
        long_prompts,
        dialogue,
        sampling,
        profile,
        identity,
        draft,
        vision,
        tokenizers,
    )


def _template(settings: EngineSettings, model: Model, templates: RendersTemplates) -> tuple[ChatTemplate | None, str]:
    """The chat template, or None and why there is none: the model can still continue text."""
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


def _published_sampling(model: Model) -> Sampling:
    """What the file recommends. Source: llama.cpp, src/llama-arch.cpp, general.sampling.*"""

    def number(key: str) -> float | None:
        value = model.metadata(f"general.sampling.{key}")
        return None if value is None else float(value)

    top_k = number("top_k")
    return Sampling(
        temperature=number("temp"),
        top_k=None if top_k is None else int(top_k),
        top_p=number("top_p"),
        min_p=number("min_p"),
        repetition_penalty=number("penalty_repeat"),
    )


def fingerprint(settings: EngineSettings, model: Model) -> str:
    """Equal for equal weights on equal backends, as OpenAI's ``system_fingerprint``."""
    facts = f"{version()} {settings.quantization} {model.size_bytes} {model.metadata('general.name')}"
    return "fp_" + hashlib.sha256(facts.encode()).hexdigest()[:12]
