"""Where the Hugging Face cache has a repository. Nothing is downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel

DEFAULT_REVISION: Final = "main"
_HUB_ID: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository on the hub, at one branch, tag or commit."""

    repo: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """The parts of ``org/name[@revision]``; None where it is not of that form."""
        match = _HUB_ID.fullmatch(text)
        if match is None or ".." in text:
            return None
        return cls(match["repo"], match["revision"] or DEFAULT_REVISION)


def cached_snapshot(hub_id: HubId, cache: Path | None) -> Path:
    """The folder of that repository in the local cache.

    Args:
        hub_id: what to look for.
        cache: the cache's folder; None: the one that huggingface_hub uses (HF_HUB_CACHE, HF_HOME).

    Raises:
        UnusableModel: it is not there, or the id is none.
    """
    # Imported here: it takes longer than the rest of Modelyard together.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                hub_id.repo,
                revision=hub_id.revision,
                cache_dir=cache,
                local_files_only=True,
                # Expect no file in particular: who downloaded one file of a repository has what is needed.
                allow_patterns=[],
            )
        )
    except HFValidationError as error:
        raise UnusableModel(f"'{hub_id.repo}' is not a hub id: {error}") from None
    except LocalEntryNotFoundError:
        revision = "" if hub_id.revision == DEFAULT_REVISION else f" --revision {hub_id.revision}"
        raise UnusableModel(
            f"'{hub_id.repo}' at revision '{hub_id.revision}' is not in the local Hugging Face cache, and downloading "
            f"is not available in this version. Download it yourself, e.g. `hf download {hub_id.repo}{revision} "
            "--include '*Q4_K_M*.gguf'`, or give the path of a GGUF file."
        ) from None
