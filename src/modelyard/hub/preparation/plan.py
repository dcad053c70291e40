"""What has to be done until a model's files are on this machine. Looks at listings; downloads no weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.formats.uqff.constants import REPORT, SUFFIX, TYPES
from modelyard.hub.preparation.conversion_key import conversion_key
from modelyard.hub.preparation.projector_plan import NO_PROJECTOR, ProjectorPlan, plan_projector
from modelyard.hub.select.gguf import Shard, expand_shards, parse_quant
from modelyard.hub.select.isq import BITS, NEEDS_IMATRIX, Target
from modelyard.hub.select.kind import check_kind
from modelyard.hub.select.projector import TriedProjectors
from modelyard.hub.select.select import Decision, FileRequest, NeedsListing, decide
from modelyard.hub.select.uqff import gguf_label
from modelyard.hub.sources.converted import ConvertedModels, Entry
from modelyard.hub.sources.folder import list_files
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.huggingface import Hub
from modelyard.hub.sources.listing import ListedFile, Listing
from modelyard.hub.sources.locate import locate

_MAX_REPORT_LENGTH: Final = 2**24

# What ``quant = "auto"`` tries, in this order; None is full precision.
AUTO_LEVELS: Final = (None, "8", "6", "5", "4", "3", "2")


@dataclass(frozen=True, slots=True)
class Stores:
    """Where files come from, where converted ones go, and which projectors work."""

    hub: Hub = field(default_factory=Hub)
    converted: ConvertedModels = field(default_factory=ConvertedModels)
    projectors: TriedProjectors = field(default_factory=TriedProjectors)


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What a model is served from, and what has to be done first.

    Attributes:
        wanted: what was asked for.
        decision: what the files are.
        key: of the converted file; "" where the files are served as they are.
        made: the converted file, where an earlier conversion has made it.
        download_bytes: that are not on this machine yet.
        output_bytes: that a conversion will write, about; 0 for none.
        projector: where its projector comes from, if it has one.
    """

    wanted: FileRequest
    decision: Decision
    key: str
    made: Entry | None
    download_bytes: int
    output_bytes: int
    projector: ProjectorPlan = NO_PROJECTOR

    @property
    def is_ready(self) -> bool:
        """Whether the model can be loaded at once."""
        conversion = self.projector.conversion
        if conversion is not None and conversion.made is None:
            return False
        return not self.download_bytes and (self.made is not None or not self.key)

    @property
    def name(self) -> str:
        """What people call the model, without the way to it."""
        hub_id = self.decision.listing.hub_id
        return hub_id.name if hub_id is not None else Path(self.decision.listing.source).name


def plan_files(wanted: FileRequest, stores: Stores, fits: Callable[[FilePlan], bool] | None = None) -> FilePlan:
    """Find out what ``wanted`` means. Asks the hub for listings where it is not all on this machine.

    Args:
        wanted: what was asked for.
        stores: where files are looked for.
        fits: whether there is memory for the model of a plan, which ``quant = "auto"`` needs to know.

    Raises:
        UnusableModel: with what is wrong and what to do.
    """
    check_kind(wanted.kind)
    is_auto = wanted.quant == "auto"
    if wanted.quant is not None and not is_auto and wanted.quant.strip().lower() not in TYPES:
        parse_quant(wanted.quant)
    here = _listing(wanted.source, stores.hub)
    seen: dict[str, Listing | RepositoryUnavailable] = {}
    if not is_auto:
        return _plan(wanted, here, seen, stores)
    if fits is None:
        raise UnusableModel("quant = 'auto' needs to know how much memory there is. Name a type or a number of bits.")
    considered: list[str] = []
    for quant in AUTO_LEVELS:
        level = "full precision" if quant is None else f"{quant} bits"
        try:
            plan = _plan(replace(wanted, quant=quant), here, seen, stores)
        except RepositoryUnavailable:
            raise
        except UnusableModel as nothing:
            considered.append(f"{level}: {nothing}")
            continue
        if fits(plan):
            decision = replace(plan.decision, reasons=(*considered, *plan.decision.reasons))
            return replace(plan, wanted=replace(wanted, quant=quant), decision=decision)
        considered.append(f"{level}: it does not fit the memory budget.")
    raise UnusableModel(f"'{wanted.source}': quant = 'auto' finds nothing. {' '.join(considered)}")


def _plan(
    wanted: FileRequest, here: Listing, seen: dict[str, Listing | RepositoryUnavailable], stores: Stores
) -> FilePlan:
    decision = _decide(wanted, here, seen, stores.hub)
    target = decision.target
    projector = plan_projector(wanted, decision, stores.hub, stores.converted)
    if target is None:
        download_bytes = _download_bytes(decision, is_model_needed=True, projector=projector)
        return FilePlan(wanted, decision, "", None, download_bytes, 0, projector)
    if target.label in NEEDS_IMATRIX and wanted.imatrix is None:
        raise UnusableModel(
            f"llama.cpp makes {target.label} only with an importance matrix. Set imatrix to one of the model, or "
            "choose a type of more bits."
        )
    key = conversion_key(decision, target.label, wanted.imatrix)
    made = stores.converted.find(key)
    download_bytes = _download_bytes(decision, is_model_needed=made is None, projector=projector)
    return FilePlan(wanted, decision, key, made, download_bytes, _output_bytes(decision, target), projector)


def _download_bytes(decision: Decision, *, is_model_needed: bool, projector: ProjectorPlan) -> int:
    """Bytes that are not on this machine yet, of the files that are still read."""
    is_projector_to_be_made = projector.conversion is not None and projector.conversion.made is None
    names = decision.names if is_model_needed or is_projector_to_be_made else ()
    return decision.listing.size_of(decision.listing.missing((*names, projector.name)))


def _listing(source: str, hub: Hub) -> Listing:
    place = locate(source)
    if isinstance(place, HubId):
        return _with_report(hub.list(place), hub)
    if place.is_dir():
        return _with_report(_of_folder(place, source, list_files(place)), hub)
    if place.suffix.lower() == SUFFIX:
        return _with_report(_of_folder(place.parent, source, list_files(place.parent)), hub)
    return _of_folder(place.parent, source, _shards_of(place))


def _with_report(listing: Listing, hub: Hub) -> Listing:
    """The same, with the report of what was quantised to UQFF there."""
    if REPORT not in listing.names:
        return listing
    return replace(listing, uqff_report=hub.read(listing, REPORT, _MAX_REPORT_LENGTH))


def _of_folder(folder: Path, source: str, names: list[str]) -> Listing:
    files = []
    for name in names:
        try:
            size = (folder / name).stat().st_size
        except OSError:
            size = None  # a broken link, which is looked into where it is needed
        files.append(ListedFile(name, size, is_here=True))
    return Listing(source=source, files=tuple(files), folder=folder)


def _shards_of(path: Path) -> list[str]:
    """The file that was named, with the other shards of the same model."""
    shard = Shard.parse(path.name)
    if shard is None:
        if path.suffix.lower() == ".safetensors":
            raise UnusableModel(
                f"{path}: This is a part of a checkpoint. Name its folder, which has the configuration and the "
                "tokenizer too."
            )
        return [path.name]
    try:
        return list(expand_shards(shard, [other.name for other in path.parent.iterdir()]))
    except UnusableModel as error:
        raise UnusableModel(f"{path}: {error}") from None
    except OSError as error:
        raise UnusableModel(f"{path.parent}: The shards cannot be listed: {error}. Check the permissions.") from error


def _decide(wanted: FileRequest, here: Listing, seen: dict[str, Listing | RepositoryUnavailable], hub: Hub) -> Decision:
    if here.hub_id is None and not Path(wanted.source).expanduser().is_dir():
        return _named_file(wanted, here)
    unreachable: RepositoryUnavailable | None = None
    while isinstance(step := decide(wanted, here, seen), NeedsListing):
        if unreachable is not None:
            seen[step.repo] = unreachable
            continue
        try:
            seen[step.repo] = _with_report(hub.list(HubId(step.repo)), hub)
        except RepositoryUnavailable as unavailable:
            seen[step.repo] = unavailable
            if unavailable.why in ("unreachable", "offline"):
                # Each would take as long to fail again.
                unreachable = unavailable
    return step


def _named_file(wanted: FileRequest, here: Listing) -> Decision:
    """A file that was named directly is what is meant, whatever it is called."""
    if wanted.quantized_file:
        raise UnusableModel(
            f"'{wanted.source}' is a file already: quantized_file names one of a folder or repository. Remove it."
        )
    named = Path(wanted.source).name
    if named.lower().endswith(SUFFIX):
        decision = decide(FileRequest(wanted.source, from_uqff=named), here, {})
        assert isinstance(decision, Decision)
        return decision
    if wanted.isq is not None:
        decision = decide(wanted, here, {})
        assert isinstance(decision, Decision)
        return decision
    more = f" and {len(here.names) - 1} more shards" if len(here.names) > 1 else ""
    reason = f"{here.names[0]}{more}: it is named directly."
    return Decision(here, here.names, "gguf", None, None, (reason,))


def _output_bytes(decision: Decision, target: Target) -> int:
    """About what the converted file takes; checkpoints are nearly all in 16 bits."""
    size_of = decision.listing.size_of
    if decision.form == "uqff":
        _, growth = gguf_label(decision.label or "")
        shards = size_of(name for name in decision.names if name.endswith(SUFFIX))
        return round(shards * growth) + size_of(name for name in decision.names if name.endswith(".safetensors"))
    source_bytes = size_of(name for name in decision.names if name.endswith((".safetensors", ".gguf")))
    return round(source_bytes * BITS.get(target.label, BITS["BF16"]) / BITS["BF16"])
