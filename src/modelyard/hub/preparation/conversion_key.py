"""Names each conversion by a digest of everything that its outcome depends on, so that it is made once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.hub.select.select import Decision
from modelyard.hub.sources.converted import key_of
from modelyard.hub.sources.llama_converter import ENGINE, engine_version

# Version of this project's part in a conversion: another number makes all models be converted again.
_RECIPE: Final = 5
_FINGERPRINT_BYTES: Final = 2**20


def conversion_key(decision: Decision, label: str, imatrix: Path | None = None) -> str:
    """Return the digest that names a conversion: equal for equal weights, type and converters.

    The commit identifies the files of a repository. Files of a folder are identified by size, time, and first and last
    MiB: reading many gigabytes would take longer than loading the model.

    Args:
        decision: the files that are converted.
        label: type of the output: the type of a whole GGUF file, "" for the precision of the files, or for a projector
            "mmproj-" and its precision.
        imatrix: importance matrix that the weights are quantised with.

    Raises:
        UnusableModel: a file cannot be read.
    """
    listing = decision.listing
    try:
        if listing.hub_id is not None:
            contents: object = [listing.hub_id.repo, listing.commit, decision.names]
        else:
            assert listing.folder is not None
            contents = [[name, *_fingerprint(listing.folder / name)] for name in decision.names]
        facts = {
            "recipe": _RECIPE,
            "contents": contents,
            "target": label,
            "imatrix": None if imatrix is None else _fingerprint(imatrix),
            "quantizer": engine_version(),
            "converter": None if decision.form == "gguf" else f"{ENGINE} {engine_version()}",
        }
    except OSError as error:
        raise UnusableModel(f"{error.filename} cannot be read: {error.strerror}. Check the path.") from error
    return key_of(facts)


def _fingerprint(path: Path) -> list[object]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        digest = hashlib.blake2b(file.read(_FINGERPRINT_BYTES), digest_size=16)
        file.seek(max(0, size - _FINGERPRINT_BYTES))
        digest.update(file.read(_FINGERPRINT_BYTES))
    return [size, path.stat().st_mtime_ns, digest.hexdigest()]
