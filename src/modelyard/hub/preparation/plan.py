"""Plans the downloads and conversions of a model's files. Reads listings; downloads no weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.formats.uqff.constants import REPORT, SUFFIX, TYPES
from modelyard.hub.preparation.conversion_key import conversion_key
from modelyard.hub.preparation.projector_plan import NO_PROJECTOR, ProjectorPlan, plan_projector
from modelyard.hub.select.gguf import Shard, default_gguf, expand_shards, parse_quant
from modelyard.hub.select.isq import BITS, NEEDS_IMATRIX, Target
from modelyard.hub.select.kind import check_kind
from modelyard.hub.select.projector import TriedProjectors
from modelyard.hub.select.select import Decision, FileRequest, NeedsListing, select_files
from modelyard.hub.select.uqff import gguf_label
from modelyard.hub.sources.converted import ConvertedModels, Entry
from modelyard.hub.sources.folder import list_files
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.huggingface import Hub
from modelyard.hub.sources.listing import ListedFile, Listing
from modelyard.hub.sources.locate import locate
from modelyard.hub.sources.ollama_store import PREFIX, read_ollama_model

_MAX_REPORT_LENGTH: Final = 2**24

# Levels that ``quant = "auto"`` tries, in this order; None is full precision.
AUTO_LEVELS: Final = (None, "8", "6", "5", "4", "3", "2")


@dataclass(frozen=True, slots=True)
class Stores:
    """The hub, the converted models, and the projectors that were tried, which all plans share."""

    hub: Hub = field(default_factory=Hub)
    converted: ConvertedModels = field(default_factory=ConvertedModels)
    projectors: TriedProjectors = field(default_factory=TriedProjectors)


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The files that a model is served from, and the downloads and conversions that they need.

    Attributes:
        request: the request that the plan fulfils.
        decision: the files that were selected.
        key: key of the converted file; "" where the files are served as they are.
        made: the converted file, if an earlier conversion made it.
        download_bytes: bytes that are not on this machine yet.
        output_bytes: approximate bytes that a conversion writes; 0 for none.
        projector: where the model's projector comes from, if it has one.
    """

    request: FileRequest
    decision: Decision
    key: str
    made: Entry | None
    download_bytes: int
    output_bytes: int
    projector: ProjectorPlan = NO_PROJECTOR

    @property
    def is_ready(self) -> bool:
        """Whether the model can be loaded without a download or conversion."""
        conversion = self.projector.conversion
        if conversion is not None and conversion.made is None:
            return False
        return not self.download_bytes and (self.made is not None or not self.key)

    @property
    def name(self) -> str:
        """The name of the repository, folder or file, without its path."""
        hub_id = self.decision.listing.hub_id
        return hub_id.name if hub_id is not None else Path(self.decision.listing.source).name


def plan_files(request: FileRequest, stores: Stores, fits: Callable[[FilePlan], bool] | None = None) -> FilePlan:
    """Return the plan for ``request``. Fetches listings from the hub where files are not on this machine.

    Args:
        request: the model and how it is to be served.
        stores: where files are looked up.
        fits: whether the memory budget has room for the model of a plan; needed for ``quant = "auto"``.

    Raises:
        UnusableModel: the request cannot be fulfilled; the message contains the reason and a remedy.
    """
    check_kind(request.kind)
    request = _with_ollama_files(request)
    is_auto = request.quant == "auto"
    if request.quant is not None and not is_auto and request.quant.strip().lower() not in TYPES:
        parse_quant(request.quant)
    listing = _listing(request.source, stores.hub)
    listings: dict[str, Listing | RepositoryUnavailable] = {}
    if not is_auto:
        return _plan(request, listing, listings, stores)
    if fits is None:
        raise UnusableModel("quant = 'auto' needs to know how much memory there is. Name a type or a number of bits.")
    considered: list[str] = []
    for level, found in _auto_plans(request, listing, listings, stores):
        if isinstance(found, str):
            considered.append(f"{level}: {found}")
        elif fits(found):
            decision = replace(found.decision, reasons=(*considered, *found.decision.reasons))
            return replace(found, decision=decision)
        else:
            considered.append(f"{level}: it does not fit the memory budget.")
    raise UnusableModel(f"'{request.source}': quant = 'auto' finds nothing. {' '.join(considered)}")


def plan_options(request: FileRequest, stores: Stores) -> tuple[FilePlan, ...]:
    """Return the plans among which ``quant = "auto"`` chooses, the one with the most bits per weight first.

    Raises:
        UnusableModel: there are none.
    """
    check_kind(request.kind)
    request = _with_ollama_files(request)
    found = [*_auto_plans(request, _listing(request.source, stores.hub), {}, stores)]
    if plans := tuple(plan for _, plan in found if isinstance(plan, FilePlan)):
        return plans
    considered = " ".join(f"{level}: {problem}" for level, problem in found)
    raise UnusableModel(f"'{request.source}': quant = 'auto' finds nothing. {considered}")


def _auto_plans(
    request: FileRequest, listing: Listing, listings: dict[str, Listing | RepositoryUnavailable], stores: Stores
) -> Iterator[tuple[str, FilePlan | str]]:
    """Yield each level of ``quant = "auto"`` in words, with its plan, or with the reason that there is none."""
    for quant in AUTO_LEVELS:
        level = "full precision" if quant is None else f"{quant} bits"
        if quant is None and not listing.safetensors and default_gguf(listing.names) is not None:
            yield level, f"'{listing.source}' has several quantisations, and no checkpoint."
            continue
        try:
            plan = _plan(replace(request, quant=quant), listing, listings, stores)
        except RepositoryUnavailable:
            raise
        except UnusableModel as problem:
            yield level, str(problem)
            continue
        yield level, plan


def _with_ollama_files(request: FileRequest) -> FileRequest:
    """Return the request for the files of a model of Ollama, where it names one."""
    if not request.source.startswith(PREFIX):
        return request
    model = read_ollama_model(request.source)
    projector = None if model.projector is None else model.projector.name
    return replace(request, source=str(model.path), mmproj=request.mmproj or projector)


def _plan(
    request: FileRequest, listing: Listing, listings: dict[str, Listing | RepositoryUnavailable], stores: Stores
) -> FilePlan:
    decision = _select(request, listing, listings, stores.hub)
    target = decision.target
    projector = plan_projector(request, decision, stores.hub, stores.converted)
    if target is None:
        download_bytes = _download_bytes(decision, is_model_needed=True, projector=projector)
        return FilePlan(request, decision, "", None, download_bytes, 0, projector)
    if target.label in NEEDS_IMATRIX and request.imatrix is None:
        raise UnusableModel(
            f"llama.cpp makes {target.label} only with an importance matrix. Set imatrix to one of the model, or "
            "choose a type of more bits."
        )
    key = conversion_key(decision, target.label, request.imatrix)
    made = stores.converted.find(key)
    download_bytes = _download_bytes(decision, is_model_needed=made is None, projector=projector)
    return FilePlan(request, decision, key, made, download_bytes, _output_bytes(decision, target), projector)


def _download_bytes(decision: Decision, *, is_model_needed: bool, projector: ProjectorPlan) -> int:
    """Return the bytes of the files that are still needed and not on this machine yet."""
    is_projector_converted = projector.conversion is not None and projector.conversion.made is None
    names = decision.names if is_model_needed or is_projector_converted else ()
    return decision.listing.size_of(decision.listing.missing((*names, projector.name)))


def _listing(source: str, hub: Hub) -> Listing:
    location = locate(source)
    if isinstance(location, HubId):
        return _with_report(hub.list(location), hub)
    if location.is_dir():
        return _with_report(_folder_listing(location, source, list_files(location)), hub)
    if location.suffix.lower() == SUFFIX:
        return _with_report(_folder_listing(location.parent, source, list_files(location.parent)), hub)
    return _folder_listing(location.parent, source, _shards_of(location))


def _with_report(listing: Listing, hub: Hub) -> Listing:
    """Return the listing with the contents of its UQFF report, if it has one."""
    if REPORT not in listing.names:
        return listing
    return replace(listing, uqff_report=hub.read(listing, REPORT, _MAX_REPORT_LENGTH))


def _folder_listing(folder: Path, source: str, names: list[str]) -> Listing:
    files = []
    for name in names:
        try:
            size = (folder / name).stat().st_size
        except OSError:
            size = None  # a broken link; reading the file raises the error, if the file is needed
        files.append(ListedFile(name, size, is_here=True))
    return Listing(source=source, files=tuple(files), folder=folder)


def _shards_of(path: Path) -> list[str]:
    """Return the name of the file at ``path`` and the names of the other shards of its model."""
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


def _select(
    request: FileRequest, listing: Listing, listings: dict[str, Listing | RepositoryUnavailable], hub: Hub
) -> Decision:
    if listing.hub_id is None and not Path(request.source).expanduser().is_dir():
        return _select_named_file(request, listing)
    unreachable: RepositoryUnavailable | None = None
    while isinstance(step := select_files(request, listing, listings), NeedsListing):
        if unreachable is not None:
            listings[step.repo] = unreachable
            continue
        try:
            listings[step.repo] = _with_report(hub.list(HubId(step.repo)), hub)
        except RepositoryUnavailable as unavailable:
            listings[step.repo] = unavailable
            if unavailable.why in ("unreachable", "offline"):
                # Every further request would fail after the same timeout.
                unreachable = unavailable
    return step


def _select_named_file(request: FileRequest, listing: Listing) -> Decision:
    """Select a file that is named directly, whatever type its name contains."""
    if request.quantized_file:
        raise UnusableModel(
            f"'{request.source}' is a file already: quantized_file names one of a folder or repository. Remove it."
        )
    named = Path(request.source).name
    if named.lower().endswith(SUFFIX):
        decision = select_files(FileRequest(request.source, from_uqff=named), listing, {})
        assert isinstance(decision, Decision)
        return decision
    if request.isq is not None:
        decision = select_files(request, listing, {})
        assert isinstance(decision, Decision)
        return decision
    more = f" and {len(listing.names) - 1} more shards" if len(listing.names) > 1 else ""
    reason = f"{listing.names[0]}{more}: it is named directly."
    return Decision(listing, listing.names, "gguf", None, None, (reason,))


def _output_bytes(decision: Decision, target: Target) -> int:
    """Return the approximate size of the converted file. Assumes a checkpoint in 16 bits, as nearly all are."""
    size_of = decision.listing.size_of
    if decision.form == "uqff":
        _, growth = gguf_label(decision.label or "")
        shards = size_of(name for name in decision.names if name.endswith(SUFFIX))
        return round(shards * growth) + size_of(name for name in decision.names if name.endswith(".safetensors"))
    source_bytes = size_of(name for name in decision.names if name.endswith((".safetensors", ".gguf")))
    return round(source_bytes * BITS.get(target.label, BITS["BF16"]) / BITS["BF16"])
