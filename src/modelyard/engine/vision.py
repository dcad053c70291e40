"""Images for one engine: what they become among its tokens, and the embeddings that they are fed as.

A new image is prepared twice, when its request comes and when its turn comes, unless these follow one another: what is
prepared is many times as large as the image, and requests wait in line by the hundred. An image that came before, in
whichever request, is neither prepared nor encoded again as long as its layout and its embeddings are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from modelyard.engine.image_layout import OVERVIEW_OPENINGS, Layouts
from modelyard.engine.llama import Embeddings, Model, PreparedImage, Projector
from modelyard.engine.pictures import Picture
from modelyard.engine.question import Image
from modelyard.engine.settings import KEPT_EMBEDDINGS_BYTES
from modelyard.errors import InvalidRequest, UnusableModel

_PROBE: Final = Image(64, 64, bytes(64 * 64 * 3))


class Vision:
    """The projector of one engine. It belongs to the engine's thread.

    Args:
        projector: freed with this object.
        file_bytes: size of its file.
        batch_tokens: most tokens in a step.
        openings: see ``Layouts``.

    Attributes:
        size_bytes: memory that it takes, about.
        encoded: pictures that were encoded so far.
        reused: pictures that were shown again without that.
    """

    def __init__(
        self, projector: Projector, file_bytes: int, batch_tokens: int, openings: Sequence[list[int]] = ()
    ) -> None:
        self.size_bytes = file_bytes + projector.compute_bytes
        self.encoded = 0
        self.reused = 0
        self._projector = projector
        self._batch_tokens = batch_tokens
        self._layouts = Layouts(lambda image: self._prepare(image).parts, openings)
        self._prepared: tuple[bytes, PreparedImage] | None = None
        self._embeddings: OrderedDict[int, Embeddings] = OrderedDict()

    @classmethod
    def load(
        cls,
        path: Path,
        model: Model,
        *,
        batch_tokens: int,
        offload: bool,
        threads: int,
        flash_attn: bool | None,
        on_progress: Callable[[float], bool],
    ) -> Vision:
        """Load the projector in ``path`` and try it.

        Raises:
            UnusableModel: it cannot be used with the model, or with steps of ``batch_tokens``.
        """
        projector = Projector(
            path, model, offload=offload, threads=threads, flash_attn=flash_attn, on_progress=on_progress
        )
        openings = [model.tokenize(opening, add_special=False) for opening in OVERVIEW_OPENINGS]
        vision = cls(projector, path.stat().st_size, batch_tokens, openings)
        try:
            vision.parts(_PROBE)
        except InvalidRequest as unfit:
            vision.free()
            raise UnusableModel(f"The projector {path.name} cannot be used: {unfit}") from unfit
        except BaseException:
            vision.free()
            raise
        return vision

    def parts(self, image: Image) -> list[list[int] | Picture]:
        """What the image becomes among the tokens of a prompt: pictures, and text that the model wants around them.

        Raises:
            InvalidRequest: the model cannot take it.
        """
        parts = self._layouts.of(image).of(image)
        longest = max((part.length for part in parts if isinstance(part, Picture)), default=0)
        if longest > self._batch_tokens and not self._projector.is_causal:
            raise InvalidRequest(
                f"An image of this size becomes {longest} tokens, which the model must be shown in one step, but "
                f"a step has at most {self._batch_tokens}. Send a smaller one, or set batch_tokens in [runtime].",
                image.param,
            )
        return parts

    def embeddings(self, picture: Picture) -> Embeddings:
        """What the model is shown of ``picture``.

        Raises:
            InvalidRequest: the model cannot take it.
            RuntimeError: it cannot be computed.
        """
        name = picture.placeholders[0]
        found = self._embeddings.get(name)
        if found is not None:
            self.reused += 1
            self._embeddings.move_to_end(name)
            return found
        found = self._embeddings[name] = self._projector.encode(self._prepare(picture.image), picture.index)
        self.encoded += 1
        while sum(kept.values.nbytes for kept in self._embeddings.values()) > KEPT_EMBEDDINGS_BYTES:
            self._embeddings.popitem(last=False)
        return found

    def free(self) -> None:
        """Free the projector. The model's weights must still be there."""
        self._forget()
        self._projector.free()

    def _prepare(self, image: Image) -> PreparedImage:
        if self._prepared is not None and self._prepared[0] == image.digest:
            return self._prepared[1]
        self._forget()
        prepared = self._projector.prepare(image)
        self._prepared = image.digest, prepared
        return prepared

    def _forget(self) -> None:
        if self._prepared is not None:
            self._prepared[1].free()
            self._prepared = None
