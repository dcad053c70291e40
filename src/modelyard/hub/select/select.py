"""Which files of which repository a model is served from, and what has to be done to them. Pure.

The order is the reference's: a prebuilt quantised file where one is published, else quantisation on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeAlias

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.formats.uqff.constants import RESIDUAL
from modelyard.hub.select.gguf import Choice, Shard, choose_gguf, expand_shards
from modelyard.hub.select.isq import FULL_PRECISION, Target, target_of
from modelyard.hub.select.uqff import choose_uqff, gguf_label, is_artifact, parse_report
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.listing import Listing
from modelyard.hub.sources.quant_labels import label_in, normalise

Dtype: TypeAlias = Literal["auto", "bf16", "f16", "f32"]

# What may be quantised once more with little loss.
_REQUANTISABLE: Final = (*FULL_PRECISION, "Q8_0")


@dataclass(frozen=True, slots=True)
class FileRequest:
    """What a configuration says about the files of a model; see ``config.schema``.

    Attributes:
        source: a GGUF file, a folder, or a hub id ``org/name[@revision]``. What starts with / ./ ../ ~ or ends like a
            weight file is a path; so is anything that exists.
        file_format: "gguf" or "plain" (safetensors) where only such files count; None: both.
        from_uqff: UQFF of that folder or repository: file names with ";" between, a number of bits or a type.
        quantized_file: GGUF files of that folder or repository, by name, in order; () for none.
        imatrix: file with the importance of the weights, for quantisation on this machine.
        mmproj: the projector of that folder or repository, by name; None: the one that is found, if any.
        siblings: patterns of repositories with quantised files, in the order in which they are asked.
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
    siblings: tuple[str, ...] = ()
    mmproj: str | None = None


@dataclass(frozen=True, slots=True)
class NeedsListing:
    """Another repository has to be looked at before it can be decided."""

    repo: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the weights come from.

    Attributes:
        listing: of the folder or repository.
        names: its files that are needed, weights first.
        form: of the weights: "gguf" as it is, "gguf" that is quantised again, a "safetensors" checkpoint, or "uqff"
            with the safetensors of what it does not quantise.
        target: what they become; None: they are served as they are.
        label: the quantisation in the name of a published file.
        reasons: what was considered, in sentences; the last says what it is and why.
    """

    listing: Listing
    names: tuple[str, ...]
    form: Literal["gguf", "safetensors", "uqff"]
    target: Target | None
    label: str | None
    reasons: tuple[str, ...]


Seen: TypeAlias = Mapping[str, Listing | RepositoryUnavailable]
"""Repositories that were looked at, or why they could not be."""


def decide(wanted: FileRequest, here: Listing, seen: Seen) -> Decision | NeedsListing:
    """What the model is served from, or which repository has to be looked at to know.

    Args:
        wanted: what was asked for, by at most one of its keys ``quant``, ``isq``, ``from_uqff``, ``quantized_file``.
        here: the files of the folder or repository that was named.
        seen: the answers to probes so far, by repository.

    Raises:
        UnusableModel: nothing that is there fits, or several fit equally well.
    """
    siblings = wanted.siblings
    if wanted.file_format is not None:
        here = _only(here, wanted.file_format)
    if wanted.file_format == "plain":
        siblings = ()
    if wanted.quantized_file:
        return _named(here, wanted.quantized_file)
    if wanted.from_uqff is not None:
        return _from_uqff(here, choose_uqff(here, wanted.from_uqff), ())
    if wanted.isq is not None:
        return _in_situ(here, target_of(wanted.isq), ())
    if wanted.quant is None:
        return _full_precision(here, wanted.dtype)
    return _prebuilt(here, wanted.quant, siblings, seen)


def _only(here: Listing, file_format: str) -> Listing:
    """The listing without weights of another format."""
    others = set(here.safetensors if file_format == "gguf" else here.gguf)
    return replace(here, files=tuple(file for file in here.files if file.name not in others), file_format=file_format)


def _named(here: Listing, names: tuple[str, ...]) -> Decision:
    present = set(here.names)
    if absent := [name for name in names if name not in present]:
        offered = ", ".join(here.gguf) or "none"
        raise UnusableModel(f"'{here.source}' has no file '{absent[0]}'. Its GGUF files: {offered}.")
    shard = Shard.parse(names[0])
    if shard is not None and len(names) == 1:
        names = expand_shards(shard, here.names)
    return Decision(here, names, "gguf", None, None, (f"{names[0]}: it is named by quantized_file.",))


def _in_situ(here: Listing, target: Target, considered: tuple[str, ...]) -> Decision:
    """Quantise what is here."""
    if here.safetensors:
        reason = f"The safetensors weights of '{here.source}' are quantised here to {target.label}."
        return _checkpoint(here, target, (*considered, _with_notice(reason, target)))
    by_precision = {normalise(label): name for name in here.gguf if (label := label_in(name)) is not None}
    for label in _REQUANTISABLE:
        if (name := by_precision.get(normalise(label))) is not None:
            names = _whole(here, name)
            if target.label == label:
                return Decision(here, names, "gguf", None, label, (*considered, f"{name} is {label} already."))
            reason = _with_notice(f"{name} is quantised here to {target.label}.", target)
            return Decision(here, names, "gguf", target, None, (*considered, reason))
    if len(here.gguf) == 1 and label_in(here.gguf[0]) is None:
        # Its header will say whether that can be done.
        reason = _with_notice(f"{here.gguf[0]} is quantised here to {target.label}.", target)
        return Decision(here, here.gguf, "gguf", target, None, (*considered, reason))
    if here.gguf:
        raise UnusableModel(
            f"'{here.source}' has only GGUF files that are quantised already: {', '.join(here.gguf)}. Choose one of "
            "them with quant instead of isq, or name the model's full-precision repository."
        )
    raise UnusableModel(_no_weights(here))


def _full_precision(here: Listing, dtype: Dtype) -> Decision:
    """What is published, as it is."""
    if dtype != "auto":
        wanted = dtype.upper()
        of_that = [name for name in here.gguf if normalise(label_in(name) or "") == wanted]
        if not here.safetensors and len(of_that) == 1:
            return Decision(here, _whole(here, of_that[0]), "gguf", None, wanted, (f"{of_that[0]}: it is {wanted}.",))
        if not here.safetensors:
            return _in_situ(here, Target(wanted), ())
        return _checkpoint(here, Target(wanted), (f"The weights of '{here.source}' are converted to {wanted}.",))
    if not here.gguf and here.safetensors:
        return _checkpoint(here, Target(""), (f"The weights of '{here.source}' keep the precision that they have.",))
    if not here.gguf:
        raise UnusableModel(_no_weights(here))
    if here.safetensors:
        full = [name for name in here.gguf if normalise(label_in(name) or "") in FULL_PRECISION]
        if len(full) != 1:
            return _checkpoint(
                here, Target(""), (f"The full-precision weights of '{here.source}' keep the precision that they have.",)
            )
        return _published(here, choose_gguf(full, None), ())
    return _published(here, _choose(here, None), ())


def _prebuilt(here: Listing, quant: str, siblings: tuple[str, ...], seen: Seen) -> Decision | NeedsListing:
    """A published file of that type; else quantisation here."""
    considered: list[str] = []
    if here.gguf:
        try:
            return _published(here, _choose(here, quant), ())
        except UnusableModel as nothing:
            if not here.safetensors and not here.uqff:
                raise
            considered.append(f"No GGUF file of '{here.source}' is it: {nothing}")
    if here.uqff or is_artifact(here):
        try:
            return _from_uqff(here, choose_uqff(here, quant), tuple(considered))
        except UnusableModel as nothing:
            if is_artifact(here):
                raise
            considered.append(f"No UQFF of '{here.source}' is it: {nothing}")
    if here.hub_id is not None:
        for pattern in siblings:
            repo = pattern.format(repo=here.hub_id.repo, organisation=here.hub_id.organisation, name=here.hub_id.name)
            if repo == here.hub_id.repo:
                continue
            if repo not in seen:
                return NeedsListing(repo)
            found = _sibling(here.hub_id, seen[repo], repo, quant)
            if isinstance(found, Decision):
                return replace(found, reasons=(*considered, *found.reasons))
            considered.append(found)
    return _in_situ(here, target_of(quant), tuple(considered))


def _sibling(original: HubId, sibling: Listing | RepositoryUnavailable, repo: str, quant: str) -> Decision | str:
    """The published file, or why there is none."""
    if isinstance(sibling, RepositoryUnavailable):
        return f"'{repo}' is {sibling.why}."
    try:
        bases = _bases(sibling)
        if original.repo.lower() not in (base.lower() for base in bases):
            made_from = ", ".join(bases) or "no model at all"
            return f"'{repo}' is passed over: it declares to be made from {made_from}, not from '{original.repo}'."
        if sibling.uqff and not sibling.gguf:
            return _from_uqff(sibling, choose_uqff(sibling, quant), ())
        return _published(sibling, choose_gguf(sibling.names, quant), ())
    except UnusableModel as nothing:
        return f"'{repo}' has nothing that fits: {nothing}"


def _bases(listing: Listing) -> tuple[str, ...]:
    """What a repository declares to be made from, in its card or in its report."""
    if listing.uqff_report is None:
        return listing.base_models
    report = parse_report(listing.uqff_report, listing.source, listing.names)
    return (*listing.base_models, *([report.base_model] if report.base_model else []))


def _choose(here: Listing, quant: str | None) -> Choice:
    try:
        return choose_gguf(here.names, quant)
    except UnusableModel as error:
        raise UnusableModel(f"'{here.source}': {error}") from None


def _published(listing: Listing, choice: Choice, considered: tuple[str, ...]) -> Decision:
    return Decision(listing, choice.names, "gguf", None, choice.label, (*considered, choice.reason))


def _from_uqff(here: Listing, choice: Choice, considered: tuple[str, ...]) -> Decision:
    """Shards, with the weights that they leave out: those of the source where it is here too, else the residual."""
    others = here.safetensors or tuple(name for name in here.names if name == RESIDUAL)
    for name, is_there in ((RESIDUAL, bool(others)), ("config.json", "config.json" in here.names)):
        if not is_there:
            raise UnusableModel(
                f"'{here.source}' has {choice.names[0]}, but no {name}: UQFF is not the whole of a model. Name the "
                "folder or repository that 'mistralrs quantize' wrote."
            )
    descriptions = [name for name in here.descriptions if here.safetensors or not name.endswith(".index.json")]
    label, _ = gguf_label(choice.label or "")
    return Decision(
        here,
        (*choice.names, *others, *descriptions),
        "uqff",
        Target(label),
        choice.label,
        (*considered, choice.reason),
    )


def _checkpoint(here: Listing, target: Target, reasons: tuple[str, ...]) -> Decision:
    if "config.json" not in here.names:
        raise UnusableModel(
            f"'{here.source}' has safetensors weights, but no config.json: it is no checkpoint that can be converted. "
            "Name the folder or repository of the whole model."
        )
    return Decision(here, (*here.safetensors, *here.descriptions), "safetensors", target, None, reasons)


def _whole(here: Listing, name: str) -> tuple[str, ...]:
    shard = Shard.parse(name)
    return (name,) if shard is None else expand_shards(shard, here.names)


def _with_notice(reason: str, target: Target) -> str:
    return f"{reason} {target.notice}" if target.notice else reason


def _no_weights(here: Listing) -> str:
    if here.file_format:
        return (
            f"'{here.source}' has no weights of the format '{here.file_format}'. Remove format, or name another folder "
            "or repository."
        )
    if here.uqff:
        return (
            f"'{here.source}' has only quantised weights in UQFF: choose some with quant or from_uqff. Its UQFF files: "
            f"{', '.join(here.uqff)}."
        )
    if here.pickles:
        return (
            f"'{here.source}' has only PyTorch weights ({here.pickles[0]}), whose format can run code on this machine: "
            "they are not read. Name a repository or folder with safetensors or GGUF."
        )
    others = [name for name in here.names if PurePosixPath(name).suffix == ".safetensors"]
    if others:
        return (
            f"'{here.source}' has safetensors files ({others[0]}), but no model*.safetensors at its top: it is no "
            "checkpoint of a language model. Name the folder or repository of the model itself."
        )
    return f"'{here.source}' has no model: no file there ends in .gguf or .safetensors. Check the path."
