"""Chooses among the UQFF shards of a folder or repository. Pure: names and a report in, names out."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from modelyard.errors import UnusableModel
from modelyard.formats.uqff.constants import REPORT, RESIDUAL, SHORTHANDS, SUFFIX
from modelyard.hub.select.gguf import FileChoice
from modelyard.hub.sources.listing import Listing

_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})\.uqff", re.IGNORECASE | re.DOTALL)

# For each type of UQFF: the label of the GGUF file that it is converted to, and the ratio of the sizes, GGUF to UQFF.
_LABELS: Final[Mapping[str, tuple[str, float]]] = {
    "q2k": ("Q2_K", 1.0), "q3k": ("Q3_K_S", 1.0), "q4k": ("Q4_K_S", 1.0), "q5k": ("Q5_K_S", 1.0), "q6k": ("Q6_K", 1.0),
    "q8k": ("Q8_0", 272 / 292), "q4_0": ("Q4_0", 1.0), "q4_1": ("Q4_1", 1.0), "q5_0": ("Q5_0", 1.0),
    "q5_1": ("Q5_1", 1.0), "q8_0": ("Q8_0", 1.0), "q8_1": ("Q8_0", 34 / 36), "hqq4": ("Q4_K_S", 1.0),
    "hqq8": ("Q8_0", 1.0), "fp8": ("Q8_0", 34 / 32), "f8q8": ("Q8_0", 34 / 33), "afq2": ("Q4_1", 5 / 2.5),
    "afq3": ("Q4_1", 5 / 3.5), "afq4": ("Q4_1", 5 / 4.5), "afq6": ("Q6_K", 1.0), "afq8": ("Q8_0", 1.0),
    "mxfp4": ("MXFP4_MOE", 1.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class UqffOutput:
    """One quantised model: its requested type, and its shards in order."""

    quant: str
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UqffReport:
    """The contents of ``uqff_report.json``. base_model is "" if the report has none."""

    outputs: tuple[UqffOutput, ...]
    base_model: str


def gguf_label(quant: str) -> tuple[str, float]:
    """Return the label of the GGUF that a UQFF type is converted to, and the ratio of sizes; ("", 1) if unknown."""
    return _LABELS.get(quant.lower(), ("", 1.0))


def is_artifact(listing: Listing) -> bool:
    """Whether a repository or folder holds UQFF alone, with the full-precision weights in another one."""
    name = listing.hub_id.name if listing.hub_id is not None else ""
    has_sources = bool(listing.safetensors or listing.gguf or listing.pickles)
    return (
        name.lower().endswith("-uqff")
        or REPORT in listing.names
        or RESIDUAL in listing.names
        or (bool(listing.uqff) and not has_sources)
    )


def choose_uqff(listing: Listing, wanted: str) -> FileChoice:
    """Choose the shards that ``wanted`` names; the label of the choice is their type.

    Args:
        listing: the folder or repository; its report, if it has one, tells which shards belong together.
        wanted: a file name, several separated by ";", a number of bits, or a type.

    Raises:
        UnusableModel: no file matches, shards are missing, or the report is invalid. The message lists the UQFF files.
    """
    outputs = _outputs(listing)
    parts = [part.strip() for part in wanted.split(";") if part.strip()]
    chosen = list(dict.fromkeys(_find(outputs, part, listing) for part in parts))
    if not chosen:
        raise UnusableModel(f"'{wanted}' names no UQFF file. {_available(listing)}")
    names = tuple(dict.fromkeys(name for output in chosen for name in output.shards))
    more = f" and {len(names) - 1} more shards" if len(names) > 1 else ""
    return FileChoice(names, f"{names[0]}{more}: UQFF of the type {chosen[0].quant}.", chosen[0].quant)


def parse_report(text: bytes, source: str, present: Iterable[str]) -> UqffReport:
    """Parse the report of a UQFF repository, and check it against the files that are ``present`` there.

    Raises:
        UnusableModel: the report is malformed, or contradicts itself or the files.
    """

    def refuse(problem: str) -> UnusableModel:
        return UnusableModel(f"'{source}': Its {REPORT} {problem}. Download it again, or make it anew.")

    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not JSON ({error})") from error
    entries = report.get("outputs") if isinstance(report, dict) else None
    if not isinstance(entries, list) or not entries:
        raise refuse("lists no outputs")
    outputs: list[UqffOutput] = []
    files = set(present)
    quant_by_shard: dict[str, str] = {}
    for entry in entries:
        output = _parse_output(entry)
        if output is None:
            raise refuse("has an output without a type ('quant') or without shards")
        if output.quant.lower() in (other.quant.lower() for other in outputs):
            raise refuse(f"has two outputs of the type {output.quant!r}")
        for shard in output.shards:
            if shard not in files:
                raise refuse(f"lists the shard {shard!r} of {output.quant!r}, which is missing")
            if shard in quant_by_shard:
                raise refuse(f"has the shard {shard!r} in two outputs, {quant_by_shard[shard]!r} and {output.quant!r}")
            quant_by_shard[shard] = output.quant
        outputs.append(output)
    base_model = report.get("base_model")
    return UqffReport(tuple(outputs), base_model if isinstance(base_model, str) else "")


def _parse_output(entry: Any) -> UqffOutput | None:
    quant, shards = (entry.get("quant"), entry.get("shards")) if isinstance(entry, dict) else (None, None)
    if not isinstance(quant, str) or not quant.strip() or not isinstance(shards, list) or not shards:
        return None
    if not all(isinstance(shard, str) for shard in shards):
        return None
    return UqffOutput(quant.strip(), tuple(shards))


def _outputs(listing: Listing) -> Sequence[UqffOutput]:
    """Return the published models, from the report or else from the names of the shards."""
    if listing.uqff_report is not None:
        return parse_report(listing.uqff_report, listing.source, listing.names).outputs
    numbered: defaultdict[str, dict[int, str]] = defaultdict(dict)
    outputs = []
    for name in listing.uqff:
        shard = _SHARD.fullmatch(name)
        if shard is None:
            outputs.append(UqffOutput(PurePosixPath(name).stem, (name,)))
        else:
            numbered[shard["stem"]][int(shard["number"])] = name
    outputs += [
        UqffOutput(stem, tuple(name for _, name in sorted(shards.items()))) for stem, shards in numbered.items()
    ]
    return outputs


def _find(outputs: Sequence[UqffOutput], wanted: str, listing: Listing) -> UqffOutput:
    by_type = {PurePosixPath(output.quant).name.lower(): output for output in outputs}
    found = next((output for output in outputs if wanted in output.shards), None)
    if found is None:
        types = SHORTHANDS.get(wanted, (wanted.lower(),))
        found = next((by_type[name] for name in types if name in by_type), None)
    if found is None:
        raise UnusableModel(f"'{listing.source}' has no UQFF that is '{wanted}'. {_available(listing)}")
    _check_contiguous(found, listing)
    return found


def _check_contiguous(output: UqffOutput, listing: Listing) -> None:
    """Check that the numbers of the shards start at 0 and have no gap; the format does not contain their count."""
    shards = [match for name in output.shards if (match := _SHARD.fullmatch(name)) is not None]
    for expected, shard in enumerate(sorted(shards, key=lambda match: int(match["number"]))):
        if int(shard["number"]) != expected:
            raise UnusableModel(
                f"'{listing.source}' lacks the shard {shard['stem']}-{expected}{SUFFIX}, but has {shard.string}. "
                "Download the missing shard."
            )


def _available(listing: Listing) -> str:
    return f"Its UQFF files: {', '.join(listing.uqff) or 'none'}."
