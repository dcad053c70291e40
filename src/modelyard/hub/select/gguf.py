"""Chooses among the GGUF files of a folder or repository. Pure: names in, names out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.uqff.constants import TYPES
from modelyard.hub.sources.quant_labels import bits, is_auxiliary, is_label, label_in, normalise

# Normalised labels, best first, for each number of bits in ``quant``. Source: mistral.rs, selection of published GGUF.
PREFERENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "2": ("Q2K", "Q2KL", "Q2KS"),
    "3": ("Q3KM", "Q3KS", "Q3KL", "Q3K"),
    "4": ("Q4KM", "Q4KS", "Q4KL", "Q41", "Q40", "Q4K"),
    "5": ("Q5KM", "Q5KS", "Q5KL", "Q51", "Q50", "Q5K"),
    "6": ("Q6K", "Q6KS", "Q6KL"),
    "8": ("Q80", "Q8K"),
}
_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "Q3K": ("Q3KM", "Q3KS", "Q3KL", "Q3K"),
    "Q4K": ("Q4KM", "Q4KS", "Q4KL", "Q4K"),
    "Q5K": ("Q5KM", "Q5KS", "Q5KL", "Q5K"),
}

_DEFAULT_WIDTHS: Final = ("4", "5", "6", "8", "3", "2")

_SHARD: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class FileChoice:
    """The model file that was chosen.

    Attributes:
        names: its shards in order; a single name for a file without shards.
        reason: why this file was chosen, in one sentence.
        label: the quantisation in its name; None if the name has none.
    """

    names: tuple[str, ...]
    reason: str
    label: str | None


@dataclass(frozen=True, slots=True)
class Shard:
    """A file name of the form ``<stem>-<number>-of-<count>.gguf``, number from 1."""

    stem: str
    number: int
    count: int

    @classmethod
    def parse(cls, name: str) -> Shard | None:
        """Parse the name of a shard; None for other names."""
        match = _SHARD.fullmatch(name)
        return cls(match["stem"], int(match["number"]), int(match["count"])) if match else None

    def sibling(self, number: int) -> str:
        """Return the name of another shard of the same model."""
        return f"{self.stem}-{number:05d}-of-{self.count:05d}.gguf"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One model among the files: its single file, or the shards of it that are present."""

    names: tuple[str, ...]
    label: str | None

    @property
    def key(self) -> str:
        return normalise(self.label or "")

    @property
    def description(self) -> str:
        return f"{self.names[0]} ({self.label or 'no type in its name'})"


def choose_gguf(names: Sequence[str], quant: str | None) -> FileChoice:
    """Choose the model file among ``names`` that matches ``quant``.

    Args:
        names: files of one folder or repository, relative, with "/"; files that are not GGUF are ignored.
        quant: None, a number of bits ("2" to "8"), or a label such as "q4_k_m". For a number the order of preference
            is: the list in PREFERENCES, the list with the prefix "UD-", any other type of that width except IQ types.

    Raises:
        UnusableModel: there is no model, shards are missing, no model matches, or several match equally well.
    """
    wanted = None if quant is None else parse_quant(quant)
    candidates = _group(names)
    if not candidates:
        auxiliary = sorted(name for name in names if name.lower().endswith(".gguf"))
        listed = f" There are only auxiliary files: {', '.join(auxiliary)}." if auxiliary else ""
        raise UnusableModel(f"There is no GGUF model.{listed} Name a folder or a file with a model.")
    if wanted is None:
        return _choose_single(candidates)
    if len(candidates) == 1 and candidates[0].label is None:
        return _choice_of(candidates[0], "it is the only model there, and its name contains no type")
    if wanted in PREFERENCES:
        return _choose_width(candidates, wanted)
    for label in _FAMILIES.get(wanted, (wanted,)):
        if matches := [candidate for candidate in candidates if candidate.key == label]:
            return _single(matches, f"its type is the '{quant}' that was asked for")
    raise UnusableModel(f"There is no '{quant}' file. {_available(candidates)}")


def default_gguf(names: Sequence[str]) -> FileChoice | None:
    """Choose among several quantisations of one model where none was asked for; None where there is no such choice.

    It is a type of 4 bits, else the next wider one, as users of llama.cpp and Ollama expect of a repository.

    Source: llama.cpp, common/arg.cpp, --hf-repo: "default to Q4_K_M".
    """
    candidates = _group(names)
    if len(candidates) < 2 or len({_unlabelled(candidate.names[0]) for candidate in candidates}) > 1:
        return None
    for width in _DEFAULT_WIDTHS:
        try:
            choice = _choose_width(candidates, width)
        except UnusableModel:
            continue
        reason = f"no quantisation was asked for, and {choice.label} is the default of the {len(candidates)} there."
        return FileChoice(choice.names, f"{choice.names[0]}: {reason}", choice.label)
    return None


def _unlabelled(name: str) -> str:
    """Return the name of a model's file in small letters, without its quantisation, folder and number of a shard."""
    shard = Shard.parse(name)
    stem = PurePosixPath(shard.stem if shard else name.rpartition(".")[0]).name
    label = label_in(stem)
    return (stem if label is None else stem.replace(label, "")).strip("-_.").lower()


def parse_quant(quant: str) -> str:
    """Return the number of bits, a key of PREFERENCES, or the normalised label that ``quant`` names.

    Raises:
        UnusableModel: ``quant`` is "auto", which is resolved before, or names no type.
    """
    word = quant.strip()
    if word.lower() == "auto":
        raise UnusableModel(
            "quant = 'auto' is not available in this version. "
            "Write a number of bits (quant = '4') or a type (quant = 'q4_k_m')."
        )
    wanted = normalise(word)
    width = wanted.removeprefix("Q")
    if width in PREFERENCES:
        return width
    if not is_label(word):
        raise UnusableModel(
            f"quant = '{quant}' is not a quantisation level. "
            "Write 2, 3, 4, 5, 6 or 8, or a type that is published, such as q4_k_m or q8_0."
        )
    return wanted


def check_tag(model_id: str, tag: str) -> None:
    """Refuse a tag, as in ``org/name:Q4_K_M``, that names no quantisation.

    Raises:
        UnusableModel: the message names the tag as it was written.
    """
    if tag in ("auto", *TYPES):
        return
    try:
        parse_quant(tag)
    except UnusableModel:
        raise UnusableModel(
            f"'{model_id}': The tag '{tag}' is not a quantisation. Write one after the colon, such as Q4_K_M, or none."
        ) from None


def expand_shards(shard: Shard, present: Iterable[str]) -> tuple[str, ...]:
    """Return the names of all shards of the model of ``shard``, in order.

    Raises:
        UnusableModel: shards are not among ``present``, or the number of ``shard`` exceeds the count.
    """
    if not 1 <= shard.number <= shard.count:
        raise UnusableModel(f"'{shard.sibling(shard.number)}' is no possible shard. Check the name of the file.")
    by_number = {
        other.number: name
        for name in present
        if (other := Shard.parse(name)) is not None and (other.stem, other.count) == (shard.stem, shard.count)
    }
    if missing := [shard.sibling(number) for number in range(1, shard.count + 1) if number not in by_number]:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise UnusableModel(f"{len(missing)} of {shard.count} shards are missing: {shown}. Download them too.")
    return tuple(by_number[number] for number in range(1, shard.count + 1))


def gguf_models(names: Sequence[str]) -> list[str]:
    """Return the GGUF models among the names, sorted: each by its file, or by the first of its shards."""
    return [candidate.names[0] for candidate in _group(names)]


def _group(names: Sequence[str]) -> list[_Candidate]:
    """Return the models among the names, sorted by name."""
    groups: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for name in sorted(names):
        if name.lower().endswith(".gguf") and not is_auxiliary(name):
            shard = Shard.parse(name)
            groups[(shard.stem, shard.count) if shard else (name, 0)].append(name)
    return [_Candidate(tuple(group), _label_of(group[0])) for group in groups.values()]


def _label_of(name: str) -> str | None:
    """Return the label in the file's name, or else in its folder's: publishers put shards of one type in one folder."""
    path = PurePosixPath(name)
    return label_in(path.name) or label_in(path.parent.name)


def _choose_single(candidates: Sequence[_Candidate]) -> FileChoice:
    if len(candidates) > 1:
        raise UnusableModel(f"There are {len(candidates)} models, and no 'quant' selects one. {_available(candidates)}")
    return _choice_of(candidates[0], "it is the only model there")


def _choose_width(candidates: Sequence[_Candidate], width: str) -> FileChoice:
    by_label: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_label[candidate.key].append(candidate)
    for prefix in ("", "UD"):
        for label in PREFERENCES[width]:
            if matches := by_label.get(prefix + label):
                return _single(matches, f"{matches[0].label} is the preferred type of {width} bits there")
    of_width = [c for c in candidates if c.label is not None and bits(c.label) == int(width)]
    usable = [c for c in of_width if not c.key.removeprefix("UD").startswith("IQ")]
    if usable:
        best = min(map(_rank, usable))
        matches = [candidate for candidate in usable if _rank(candidate) == best]
        return _single(matches, f"{matches[0].label} is the only type of {width} bits there")
    if of_width:
        raise UnusableModel(
            f"Of {width} bits there are only IQ types, which a number never means. Name one of them. "
            f"{_available(of_width)}"
        )
    raise UnusableModel(f"There is no model of {width} bits. {_available(candidates)}")


def _rank(candidate: _Candidate) -> int:
    """Return the rank of a candidate: 0 for plain types, 1 for Unsloth's mixes, 2 for MXFP and the like."""
    if candidate.key.startswith("Q"):
        return 0
    return 1 if candidate.key.startswith("UD") else 2


def _single(matches: Sequence[_Candidate], reason: str) -> FileChoice:
    if len(matches) > 1:
        raise UnusableModel(f"{len(matches)} models match equally well. {_available(matches)}")
    return _choice_of(matches[0], reason)


def _choice_of(candidate: _Candidate, reason: str) -> FileChoice:
    shard = Shard.parse(candidate.names[0])
    names = expand_shards(shard, candidate.names) if shard else candidate.names
    more = f" and {len(names) - 1} more shards" if len(names) > 1 else ""
    return FileChoice(names, f"{names[0]}{more}: {reason}.", candidate.label)


def _available(candidates: Sequence[_Candidate]) -> str:
    """Return a sentence that lists the candidates and how to select one: by type where types differ, else by path."""
    listed = ", ".join(candidate.description for candidate in candidates)
    by_key = {candidate.key: candidate.label for candidate in candidates}
    is_one_model = len({_unlabelled(candidate.names[0]) for candidate in candidates}) == 1
    if is_one_model and len(by_key) == len(candidates) and None not in by_key.values():
        levels = ", ".join(f"'{label.lower()}'" for label in sorted(filter(None, by_key.values())))
        return f"There are: {listed}. Set quant to one of {levels}, or name the file itself."
    return f"There are: {listed}. Name the file itself."
