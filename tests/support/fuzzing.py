"""Requests that schemathesis makes up from the server's own description, and what was wrong with the answers."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.server import WAIT_S, RunningServer

Document = dict[str, Any]

# Not "not_a_server_error": a model that is being unloaded is a 503, which is declared.
CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


# What scripted engines do not answer: they have no vocabulary. Real weights are asked.
OF_TOKENS = (
    *("/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize", "/v1/messages/count_tokens", "/apply-template"),
    *("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"),
)

_EVENTS = "text/event-stream"
_NAMES = {"enum": ["smollm2", "org/smol", "google/gemma3", "default", "nobody"]}
MODELS = {"model": _NAMES, "model_id": _NAMES, "n": {"enum": [None, 1, 3]}}
"""Values by which requests find the models of ``conftest.two_models``."""


@dataclass
class Fuzzed:
    """What came of it: answers by status, and what was wrong, with the command that shows it."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return self.statuses.total()


def narrowed(document: Document, values: Mapping[str, Document], without: Iterable[str] = ()) -> Document:
    """The description of a part: fields of requests by what ``values`` says of them, which must then be there.

    Streams of changes are left out, as they have no end.

    Args:
        document: of the server.
        values: name of a field -> its schema.
        without: paths that are left out.
    """
    part = copy.deepcopy(document)
    part["paths"] = {
        path: each for path, each in part["paths"].items() if path not in without and not _is_endless(each)
    }
    for operations in part["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                if "schema" not in content:
                    continue  # the body is a file
                body = part["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
                if "properties" not in body:
                    continue  # the body is a list
                known = {name: schema for name, schema in values.items() if name in body["properties"]}
                body["properties"] |= known
                body["required"] = sorted({*body.get("required", ()), *known})
    return part


def _shown(request: Any) -> str:
    return f"500: {request.method} {request.uri} {(request.body or b'')[:1000]!r}"


def _is_endless(operations: Mapping[str, Document]) -> bool:
    """Whether a path only streams what changes, as far as its description tells."""
    return list(operations) == ["get"] and list(operations["get"]["responses"]["200"]["content"]) == [_EVENTS]


def fuzz(
    server: RunningServer,
    document: Document,
    *,
    examples: int,
    only_valid: bool = False,
    seed: int = 1,
    headers: Mapping[str, str] | None = None,
) -> Fuzzed:
    """Ask ``server`` all that ``document`` allows, and much that it forbids.

    Args:
        server: to be asked.
        document: its description, or a narrower one.
        examples: made up for each operation, beside those for each field and its bounds.
        only_valid: ask nothing that the document forbids, nor each field's bounds one by one.
        seed: the same requests for the same seed: what fails can be asked again.
        headers: of every request.
    """
    # Imported here: that takes seconds, also where its tests are only collected.
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events, from_schema

    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "headers": dict(headers or {}),
            "base-url": server.url,
            "request-timeout": WAIT_S,
            "generation": {
                "max-examples": examples,
                "database": "none",
                **({"mode": "positive"} if only_valid else {}),
            },
            "phases": {"stateful": {"enabled": False}, "coverage": {"enabled": not only_valid}},
            "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    fuzzed = Fuzzed()
    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished(recorder=recorder):
                asked = [each for each in recorder.interactions.values() if each.response is not None]
                fuzzed.statuses.update(each.response.status_code for each in asked)
                fuzzed.failures += [_shown(each.request) for each in asked if each.response.status_code == 500]
                for checks in recorder.checks.values():
                    fuzzed.failures += [
                        f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                        for check in checks
                        if check.failure_info is not None
                    ]
            case events.NonFatalError() | events.FatalError():
                fuzzed.failures.append(str(event))
    return fuzzed
