"""Selects the files and the repository that a model is served from, and their conversion. Pure.

The order is that of mistral.rs: a published quantised file where there is one, else quantisation on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeAlias

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.formats.uqff.constants import RESIDUAL
from modelyard.hub.select.gguf import FileChoice, Shard, choose_gguf, default_gguf, expand_shards
from modelyard.hub.select.isq import FULL_PRECISION, Target, target_of
from modelyard.hub.select.uqff import choose_uqff, gguf_label, is_artifact, parse_report
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.listing import Listing
from modelyard.hub.sources.quant_labels import label_in, normalise

Dtype: TypeAlias = Literal["auto", "bf16", "f16", "f32"]

# Types whose weights can be quantised again with little loss.
_REQUANTISABLE: Final = (*FULL_PRECISION, "Q8_0")


@dataclass(frozen=True, slots=True)
class FileRequest:
    """The keys of a model's configuration that name its files; see ``config.schema``.

    Attributes:
        source: a GGUF file, a folder, or a hub id ``org/name[@revision]``. What starts with / ./ ../ ~ or ends like a
            weight file is a path; so is anything that exists.
        file_format: "gguf" or "plain" (safetensors) where only such files count; None: both.
        from_uqff: UQFF files of that folder or repository: file names separated by ";", a number of bits, or a type.
        quantized_file: names of GGUF files of that folder or repository, in order; () for none.
        imatrix: importance matrix for quantisation on this machine.
        mmproj: file name of the projector in that folder or repository; None: the one that is found, if any.
        mirror_repos: patterns of names of repositories that publish quantised files, in the order of the search.
    """

    source: str
    kind: str = "auto"
    quant: str | None = None
    isq: str | None = None
    from_uqff: str | None = None
    dtype: Dtype = "auto"
    file_format: str | None = None
    quantized_file: tuple[str, ...] = ()
    imatrix: Path | None = None
    mirror_repos: tuple[str, ...] = ()
    mmproj: str | None = None


@dataclass(frozen=True, slots=True)
class NeedsListing:
    """Selecting files needs the listing of another repository."""

    repo: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The files that were selected for a model, and their conversion.

    Attributes:
        listing: the folder or repository.
        names: the files that are needed, weights first.
        form: format of the weights: "gguf", a "safetensors" checkpoint, or "uqff" with the safetensors of the tensors
            that it does not quantise.
        target: type that the weights are converted to; None: the files are served as they are.
        label: the quantisation in the name of a published file.
        reasons: the alternatives that were considered, in sentences; the last one states the selection and why.
    """

    listing: Listing
    names: tuple[str, ...]
    form: Literal["gguf", "safetensors", "uqff"]
    target: Target | None
    label: str | None
    reasons: tuple[str, ...]


Listings: TypeAlias = Mapping[str, Listing | RepositoryUnavailable]
"""Listings of other repositories by name, or why one cannot be listed."""


def select_files(request: FileRequest, listing: Listing, listings: Listings) -> Decision | NeedsListing:
    """Return the files that the model is served from, or the repository whose listing is needed first.

    Args:
        request: at most one of its keys ``quant``, ``isq``, ``from_uqff``, ``quantized_file`` is set.
        listing: the files of the folder or repository that the request names.
        listings: the listings of other repositories that are known so far.

    Raises:
        UnusableModel: no file fits, or several fit equally well.
    """
    mirror_repos = request.mirror_repos
    if request.file_format is not None:
        listing = _of_format(listing, request.file_format)
    if request.file_format == "plain":
        mirror_repos = ()
    if request.quantized_file:
        return _from_names(listing, request.quantized_file)
    if request.from_uqff is not None:
        return _from_uqff(listing, choose_uqff(listing, request.from_uqff), ())
    if request.isq is not None:
        return _quantize_here(listing, target_of(request.isq), ())
    if request.quant is None:
        return _full_precision(listing, request.dtype)
    return _prebuilt(listing, request.quant, mirror_repos, listings)


def _of_format(listing: Listing, file_format: str) -> Listing:
    """Return the listing without weights of another format."""
    others = set(listing.safetensors if file_format == "gguf" else listing.gguf)
    files = tuple(file for file in listing.files if file.name not in others)
    return replace(listing, files=files, file_format=file_format)


def _from_names(listing: Listing, names: tuple[str, ...]) -> Decision:
    present = set(listing.names)
    if absent := [name for name in names if name not in present]:
        offered = ", ".join(listing.gguf) or "none"
        raise UnusableModel(f"'{listing.source}' has no file '{absent[0]}'. Its GGUF files: {offered}.")
    shard = Shard.parse(names[0])
    if shard is not None and len(names) == 1:
        names = expand_shards(shard, listing.names)
    return Decision(listing, names, "gguf", None, None, (f"{names[0]}: it is named by quantized_file.",))


def _quantize_here(listing: Listing, target: Target, considered: tuple[str, ...]) -> Decision:
    """Quantise the weights of the listing on this machine."""
    if listing.safetensors:
        reason = f"The safetensors weights of '{listing.source}' are quantised here to {target.label}."
        return _checkpoint(listing, target, (*considered, _with_notice(reason, target)))
    by_precision = {normalise(label): name for name in listing.gguf if (label := label_in(name)) is not None}
    for label in _REQUANTISABLE:
        if (name := by_precision.get(normalise(label))) is not None:
            names = _whole(listing, name)
            if target.label == label:
                return Decision(listing, names, "gguf", None, label, (*considered, f"{name} is {label} already."))
            reason = _with_notice(f"{name} is quantised here to {target.label}.", target)
            return Decision(listing, names, "gguf", target, None, (*considered, reason))
    if len(listing.gguf) == 1 and label_in(listing.gguf[0]) is None:
        # The header has the type of the weights; prepare() refuses a type that loses too much.
        reason = _with_notice(f"{listing.gguf[0]} is quantised here to {target.label}.", target)
        return Decision(listing, listing.gguf, "gguf", target, None, (*considered, reason))
    if listing.gguf:
        raise UnusableModel(
            f"'{listing.source}' has only GGUF files that are quantised already: {', '.join(listing.gguf)}. Choose one "
            "of them with quant instead of isq, or name the model's full-precision repository."
        )
    raise UnusableModel(_no_weights(listing))


def _full_precision(listing: Listing, dtype: Dtype) -> Decision:
    """Select published weights, without quantisation."""
    if dtype != "auto":
        wanted = dtype.upper()
        of_that = [name for name in listing.gguf if normalise(label_in(name) or "") == wanted]
        if not listing.safetensors and len(of_that) == 1:
            return Decision(
                listing, _whole(listing, of_that[0]), "gguf", None, wanted, (f"{of_that[0]}: it is {wanted}.",)
            )
        if not listing.safetensors:
            return _quantize_here(listing, Target(wanted), ())
        return _checkpoint(listing, Target(wanted), (f"The weights of '{listing.source}' are converted to {wanted}.",))
    if not listing.gguf and listing.safetensors:
        reason = f"The weights of '{listing.source}' keep the precision that they have."
        return _checkpoint(listing, Target(""), (reason,))
    if not listing.gguf:
        raise UnusableModel(_no_weights(listing))
    if listing.safetensors:
        full = [name for name in listing.gguf if normalise(label_in(name) or "") in FULL_PRECISION]
        if len(full) != 1:
            reason = f"The full-precision weights of '{listing.source}' keep the precision that they have."
            return _checkpoint(listing, Target(""), (reason,))
        return _published(listing, choose_gguf(full, None), ())
    if listing.hub_id is not None and (choice := default_gguf(listing.names)) is not None:
        return _published(listing, choice, ())
    return _published(listing, _choose(listing, None), ())


def _prebuilt(
    listing: Listing, quant: str, mirror_repos: tuple[str, ...], listings: Listings
) -> Decision | NeedsListing:
    """Select a published file of that type; else quantise on this machine."""
    considered: list[str] = []
    if listing.gguf:
        try:
            return _published(listing, _choose(listing, quant), ())
        except UnusableModel as problem:
            if not listing.safetensors and not listing.uqff:
                raise
            considered.append(f"No GGUF file of '{listing.source}' is it: {problem}")
    if listing.uqff or is_artifact(listing):
        try:
            return _from_uqff(listing, choose_uqff(listing, quant), tuple(considered))
        except UnusableModel as problem:
            if is_artifact(listing):
                raise
            considered.append(f"No UQFF of '{listing.source}' is it: {problem}")
    if (hub_id := listing.hub_id) is not None:
        for pattern in mirror_repos:
            repo = pattern.format(repo=hub_id.repo, organisation=hub_id.organisation, name=hub_id.name)
            if repo == hub_id.repo:
                continue
            if repo not in listings:
                return NeedsListing(repo)
            found = _from_mirror(hub_id, listings[repo], repo, quant)
            if isinstance(found, Decision):
                return replace(found, reasons=(*considered, *found.reasons))
            considered.append(found)
    return _quantize_here(listing, target_of(quant), tuple(considered))


def _from_mirror(original: HubId, mirror: Listing | RepositoryUnavailable, repo: str, quant: str) -> Decision | str:
    """Return the file that the mirror publishes, or why it has none."""
    if isinstance(mirror, RepositoryUnavailable):
        return f"'{repo}' is {mirror.why}."
    try:
        bases = _bases(mirror)
        if original.repo.lower() not in (base.lower() for base in bases):
            made_from = ", ".join(bases) or "no model at all"
            return f"'{repo}' is passed over: it declares to be made from {made_from}, not from '{original.repo}'."
        if mirror.uqff and not mirror.gguf:
            return _from_uqff(mirror, choose_uqff(mirror, quant), ())
        return _published(mirror, choose_gguf(mirror.names, quant), ())
    except UnusableModel as problem:
        return f"'{repo}' has nothing that fits: {problem}"


def _bases(listing: Listing) -> tuple[str, ...]:
    """Return the base models that a repository declares, in its card or in its report."""
    if listing.uqff_report is None:
        return listing.base_models
    report = parse_report(listing.uqff_report, listing.source, listing.names)
    return (*listing.base_models, *([report.base_model] if report.base_model else []))


def _choose(listing: Listing, quant: str | None) -> FileChoice:
    try:
        return choose_gguf(listing.names, quant)
    except UnusableModel as error:
        raise UnusableModel(f"'{listing.source}': {error}") from None


def _published(listing: Listing, choice: FileChoice, considered: tuple[str, ...]) -> Decision:
    return Decision(listing, choice.names, "gguf", None, choice.label, (*considered, choice.reason))


def _from_uqff(listing: Listing, choice: FileChoice, considered: tuple[str, ...]) -> Decision:
    """Select UQFF shards and the weights that they leave out, from the source checkpoint or from the residual file."""
    others = listing.safetensors or tuple(name for name in listing.names if name == RESIDUAL)
    for name, is_present in ((RESIDUAL, bool(others)), ("config.json", "config.json" in listing.names)):
        if not is_present:
            raise UnusableModel(
                f"'{listing.source}' has {choice.names[0]}, but no {name}: UQFF is not the whole of a model. Name the "
                "folder or repository that 'mistralrs quantize' wrote."
            )
    descriptions = [name for name in listing.descriptions if listing.safetensors or not name.endswith(".index.json")]
    label, _ = gguf_label(choice.label or "")
    return Decision(
        listing,
        (*choice.names, *others, *descriptions),
        "uqff",
        Target(label),
        choice.label,
        (*considered, choice.reason),
    )


def _checkpoint(listing: Listing, target: Target, reasons: tuple[str, ...]) -> Decision:
    if "config.json" not in listing.names:
        raise UnusableModel(
            f"'{listing.source}' has safetensors weights, but no config.json: it is no checkpoint that can be "
            "converted. Name the folder or repository of the whole model."
        )
    return Decision(listing, (*listing.safetensors, *listing.descriptions), "safetensors", target, None, reasons)


def _whole(listing: Listing, name: str) -> tuple[str, ...]:
    shard = Shard.parse(name)
    return (name,) if shard is None else expand_shards(shard, listing.names)


def _with_notice(reason: str, target: Target) -> str:
    return f"{reason} {target.notice}" if target.notice else reason


def _no_weights(listing: Listing) -> str:
    if listing.file_format:
        return (
            f"'{listing.source}' has no weights of the format '{listing.file_format}'. Remove format, or name another "
            "folder or repository."
        )
    if listing.uqff:
        return (
            f"'{listing.source}' has only quantised weights in UQFF: choose some with quant or from_uqff. Its UQFF "
            f"files: {', '.join(listing.uqff)}."
        )
    if listing.pickles:
        return (
            f"'{listing.source}' has only PyTorch weights ({listing.pickles[0]}), whose format can run code on this "
            "machine: they are not read. Name a repository or folder with safetensors or GGUF."
        )
    others = [name for name in listing.names if PurePosixPath(name).suffix == ".safetensors"]
    if others:
        return (
            f"'{listing.source}' has safetensors files ({others[0]}), but no model*.safetensors at its top: it is no "
            "checkpoint of a language model. Name the folder or repository of the model itself."
        )
    return f"'{listing.source}' has no model: no file there ends in .gguf or .safetensors. Check the path."
