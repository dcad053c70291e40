"""Plans where a model's projector comes from: a published file, or its own checkpoint. Converts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.hub.preparation.conversion_key import conversion_key
from modelyard.hub.select.modalities import Modalities, modalities_of_checkpoint
from modelyard.hub.select.projector import KINDS_WITH_PROJECTOR, choose_projector, is_named_after
from modelyard.hub.select.select import Decision, FileRequest
from modelyard.hub.sources.checkpoint_config import read_config, towers_of
from modelyard.hub.sources.converted import ConvertedModels, Entry
from modelyard.hub.sources.huggingface import Hub
from modelyard.hub.sources.listing import Listing
from modelyard.hub.sources.llama_converter import known_architectures
from modelyard.hub.sources.quant_labels import is_auxiliary

# Precision of a projector if no dtype is configured: its weights are a small part of a model's, so that a smaller type
# would save little memory.
_DEFAULT_LABEL: Final = "F16"
_BITS: Final = {"F16": 16, "BF16": 16, "F32": 32}


@dataclass(frozen=True, slots=True)
class ProjectorConversion:
    """A projector that is converted from the towers in a model's own checkpoint.

    Attributes:
        key: key of the converted file.
        label: its precision, such as "F16".
        made: the converted file, if an earlier conversion made it.
        output_bytes: approximate bytes that the conversion writes.
        modalities: the inputs beside text that the model takes with the projector.
    """

    key: str
    label: str
    made: Entry | None
    output_bytes: int
    modalities: Modalities


@dataclass(frozen=True, slots=True)
class ProjectorPlan:
    """The source of a model's projector.

    Attributes:
        name: name of a published projector in the decision's listing; "" for none.
        conversion: the conversion of the checkpoint's towers; None for none.
        warning: why a model with a vision or audio tower is served without a projector; "" if it is not.
    """

    name: str = ""
    conversion: ProjectorConversion | None = None
    warning: str = ""

    def __bool__(self) -> bool:
        """Whether the model has a projector."""
        return bool(self.name) or self.conversion is not None


NO_PROJECTOR: Final = ProjectorPlan()


def plan_projector(request: FileRequest, decision: Decision, hub: Hub, converted: ConvertedModels) -> ProjectorPlan:
    """Find the projector of the model of ``decision``: a published file, or else a conversion of its checkpoint.

    Raises:
        UnusableModel: the configured kind is "multimodal" and there is no projector, or config.json cannot be read.
    """
    if request.kind not in KINDS_WITH_PROJECTOR:
        return NO_PROJECTOR
    listing = decision.listing
    names = listing.names
    if listing.hub_id is None and listing.folder is not None:
        names = _names_beside(listing, request.mmproj)
    try:
        choice = choose_projector(names, decision.names[0], request.mmproj)
    except UnusableModel as error:
        raise UnusableModel(f"'{listing.source}': {error}") from None
    if choice.name:
        return ProjectorPlan(choice.name)
    if decision.form != "gguf":
        return _checkpoint_projector(request, decision, hub, converted)
    if request.kind == "multimodal":
        raise UnusableModel(
            f"'{listing.source}': kind = 'multimodal' needs a projector (mmproj). {choice.reason} "
            "Put its file beside the model's, or set kind = 'text'."
        )
    return NO_PROJECTOR


def _checkpoint_projector(
    request: FileRequest, decision: Decision, hub: Hub, converted: ConvertedModels
) -> ProjectorPlan:
    listing = decision.listing
    towers = towers_of(read_config(hub, listing))
    if towers is None:
        if request.kind == "multimodal":
            raise UnusableModel(
                f"'{listing.source}': kind = 'multimodal', but the model's config.json describes no vision or audio "
                "tower. Set kind = 'text'."
            )
        return NO_PROJECTOR
    known = known_architectures()
    if known is not None and known.projectors.isdisjoint(towers.architectures):
        reason = (
            f"llama.cpp's converter does not know the {towers.name} of "
            f"{towers.architectures[0] if towers.architectures else 'this model'}"
        )
        if request.kind == "multimodal":
            raise UnusableModel(f"'{listing.source}': kind = 'multimodal', but {reason}. Set kind = 'text'.")
        return ProjectorPlan(warning=f"The model is served as text: {reason}.")
    label = _DEFAULT_LABEL if request.dtype == "auto" else request.dtype.upper()
    key = conversion_key(decision, f"mmproj-{label}")
    size = towers.size_bytes * _BITS[label] // _BITS[_DEFAULT_LABEL]
    modalities = modalities_of_checkpoint(
        towers.architectures, has_vision=towers.has_vision, has_audio=towers.has_audio
    )
    return ProjectorPlan(conversion=ProjectorConversion(key, label, converted.find(key), size, modalities))


def _names_beside(listing: Listing, mmproj: str | None) -> tuple[str, ...]:
    """Return the names of the listing, with the GGUF files in the folder of a file that was named directly.

    If the folder has other models too, only projectors that are named after the file are included, and the file of the
    name ``mmproj``.
    """
    assert listing.folder is not None
    if Path(listing.source).expanduser().is_dir():
        return listing.names
    beside = sorted(path.name for path in listing.folder.glob("*.[gG][gG][uU][fF]"))
    others = [name for name in beside if name not in listing.names]
    if not all(map(is_auxiliary, others)):
        others = [name for name in others if is_auxiliary(name) and is_named_after(name, listing.names[0])]
    if mmproj is not None and mmproj not in others and (listing.folder / mmproj).is_file():
        others.append(mmproj)
    return (*listing.names, *others)
