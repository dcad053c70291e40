"""Names of repositories on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

DEFAULT_REVISION: Final = "main"
_HUB_ID: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository on the hub, at one branch, tag or commit."""

    repo: str
    revision: str = DEFAULT_REVISION

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """Parse ``org/name[@revision]``; None for text of another form."""
        match = _HUB_ID.fullmatch(text)
        if match is None or ".." in text:
            return None
        return cls(match["repo"], match["revision"] or DEFAULT_REVISION)

    @property
    def organisation(self) -> str:
        """The part before the slash."""
        return self.repo.partition("/")[0]

    @property
    def name(self) -> str:
        """The part after the slash."""
        return self.repo.partition("/")[2]

    def __str__(self) -> str:
        return self.repo if self.revision == DEFAULT_REVISION else f"{self.repo}@{self.revision}"
