"""Images and sound of one engine: their layout in prompts, and the embeddings that stand for them.

A new image is prepared twice, when its request is read and when it is computed, unless these follow one another: a
prepared image is many times as large as the image, and hundreds of requests may wait. An image that came before, in any
request, is neither prepared nor encoded again while its layout and its embeddings are cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.llama import Model, PreparedImage, Projector, SpanEmbeddings, SpanSize
from modelyard.engine.loading.image_layout import OVERVIEW_OPENINGS, Layouts
from modelyard.engine.loading.sound import WINDOWED, parts_of_window, resampled, windows
from modelyard.engine.settings import KEPT_EMBEDDINGS_BYTES
from modelyard.errors import InvalidRequest, TakesNoImages, TakesNoSound, UnusableModel
from modelyard.protocol.prompts import MIN_S, SAMPLE_BYTES, Audio, Image, Media
from modelyard.system.owner_shares import amounts_of, first_to_go

_PROBE: Final = Image(64, 64, bytes(64 * 64 * 3))


class Vision:
    """The projector of one engine. It belongs to the engine's thread.

    Args:
        projector: freed with this object.
        file_bytes: size of the projector's file.
        batch_tokens: limit of tokens in a step.
        openings: see ``Layouts``.
        name: id of the model, for messages.
        audio_encoder: name of the encoder of sound in the projector's file; "" where it has none.

    Attributes:
        size_bytes: memory that it takes, approximately.
        encoded: image spans that were encoded so far.
        reused: image spans whose embeddings were cached.
    """

    def __init__(
        self,
        projector: Projector,
        file_bytes: int,
        batch_tokens: int,
        openings: Sequence[list[int]] = (),
        name: str = "",
        audio_encoder: str = "",
    ) -> None:
        self.size_bytes = file_bytes + projector.compute_bytes
        self.encoded = 0
        self.reused = 0
        self._projector = projector
        self._batch_tokens = batch_tokens
        self._layouts = Layouts(lambda image: self._prepare(image).parts, openings)
        self._name = name
        self._is_windowed = audio_encoder in WINDOWED
        self._prepared: tuple[bytes, PreparedImage] | None = None
        # Embeddings with the salt of their source, by the first placeholder of their span; the most recently used last.
        self._embeddings: OrderedDict[int, tuple[str, SpanEmbeddings]] = OrderedDict()

    @classmethod
    def load(
        cls,
        path: Path,
        model: Model,
        *,
        batch_tokens: int,
        device: str | None,
        threads: int,
        flash_attn: bool | None,
        on_progress: Callable[[float], bool],
        name: str = "",
        audio_encoder: str = "",
    ) -> Vision:
        """Load the projector in ``path`` and try it. Arguments as for the class, and for ``Projector``.

        Raises:
            UnusableModel: it cannot be used with the model, or with steps of ``batch_tokens``.
        """
        projector = Projector(
            path, model, device=device, threads=threads, flash_attn=flash_attn, on_progress=on_progress
        )
        openings = [model.tokenize(opening, add_special=False) for opening in OVERVIEW_OPENINGS]
        vision = cls(projector, path.stat().st_size, batch_tokens, openings, name, audio_encoder)
        try:
            if projector.can_see:
                vision.parts(_PROBE)
            if projector.can_hear:
                vision.parts(vision.silence)
        except InvalidRequest as unfit:
            vision.free()
            raise UnusableModel(f"The projector {path.name} cannot be used: {unfit}") from unfit
        except BaseException:
            vision.free()
            raise
        return vision

    @property
    def silence(self) -> Audio:
        """The shortest clip that the projector takes."""
        rate = self._projector.sample_rate
        return Audio(bytes(round(MIN_S * rate) * SAMPLE_BYTES), rate)

    def hear_silence(self) -> None:
        """Encode the shortest clip, to find out whether llama.cpp survives it.

        Raises:
            UnusableModel: it cannot be computed.
        """
        try:
            for part in self.parts(self.silence):
                if isinstance(part, ImageSpan):
                    self.embeddings(part)
        except (InvalidRequest, RuntimeError) as failure:
            raise UnusableModel(str(failure)) from failure

    @property
    def can_see(self) -> bool:
        """Whether the model takes images."""
        return self._projector.can_see

    @property
    def can_hear(self) -> bool:
        """Whether the model takes sound."""
        return self._projector.can_hear

    def parts(self, source: Media) -> list[list[int] | ImageSpan]:
        """Return the layout of an image or a clip in a prompt: spans, and the token ids of the text around them.

        Raises:
            InvalidRequest: the model cannot take it.
            UnsupportedOperation: the model takes no images, or no sound.
        """
        if isinstance(source, Audio):
            return self._parts_of_sound(source)
        return self._parts_of_image(source)

    def _parts_of_sound(self, audio: Audio) -> list[list[int] | ImageSpan]:
        if not self.can_hear:
            raise TakesNoSound(self._name, audio.param)
        shown: list[list[int] | ImageSpan] = []
        # The length of a window determines its number of tokens, so of equal windows only the first is prepared now.
        parts_of: dict[int, list[list[int] | SpanSize]] = {}
        clips = windows(resampled(audio, self._projector.sample_rate), is_windowed=self._is_windowed)
        for number, clip in enumerate(clips):
            if clip.length not in parts_of:
                parts_of[clip.length] = self._prepare(clip).parts
            parts = parts_of_window(
                parts_of[clip.length],
                is_windowed=self._is_windowed,
                is_first=number == 0,
                is_last=number == len(clips) - 1,
            )
            shown += [
                ImageSpan(clip, index, part.length, part.positions) if isinstance(part, SpanSize) else part
                for index, part in parts
            ]
        return shown

    def _parts_of_image(self, image: Image) -> list[list[int] | ImageSpan]:
        if not self.can_see:
            raise TakesNoImages(self._name, image.param)
        parts = self._layouts.of(image).of(image)
        longest = max((part.length for part in parts if isinstance(part, ImageSpan)), default=0)
        if longest > self._batch_tokens and not self._projector.is_causal:
            raise InvalidRequest(
                f"An image of this size becomes {longest} tokens, which the model must be shown in one step, but "
                f"a step has at most {self._batch_tokens}. Send a smaller one, or set batch_tokens in [runtime].",
                image.param,
            )
        return parts

    def embeddings(self, span: ImageSpan) -> SpanEmbeddings:
        """Return the embeddings of a span, cached or encoded now.

        Raises:
            InvalidRequest: the model cannot take it.
            RuntimeError: it cannot be computed.
        """
        name = span.placeholders[0]
        found = self._embeddings.get(name)
        if found is not None:
            self.reused += 1
            self._embeddings.move_to_end(name)
            return found[1]
        encoded = self._projector.encode(self._prepare(span.source), span.index)
        self._embeddings[name] = span.source.salt, encoded
        self.encoded += 1
        while amounts_of(held := self._held()).total() > KEPT_EMBEDDINGS_BYTES:
            del self._embeddings[list(self._embeddings)[first_to_go(held)]]
        return encoded

    def _held(self) -> list[tuple[str, int]]:
        """Return the salts and the sizes in bytes of the cached embeddings."""
        return [(salt, kept.values.nbytes) for salt, kept in self._embeddings.values()]

    def free(self) -> None:
        """Free the projector. The model's weights must still be there."""
        self._free_prepared()
        self._projector.free()

    def _prepare(self, source: Media) -> PreparedImage:
        if self._prepared is not None and self._prepared[0] == source.digest:
            return self._prepared[1]
        self._free_prepared()
        prepared = self._projector.prepare(source)
        self._prepared = source.digest, prepared
        return prepared

    def _free_prepared(self) -> None:
        if self._prepared is not None:
            self._prepared[1].free()
            self._prepared = None
