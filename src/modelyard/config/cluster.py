"""``[cluster]``: how the models are spread over the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema, PlainSerializer

from modelyard.config.base import Table, Text
from modelyard.config.durations import DURATION_EXAMPLES, read_duration
from modelyard.config.names import NodePlacement

REPLICAS_WORDING: Final = "a table of models with their numbers of nodes, such as { small = 2 }"
LABELS_WORDING: Final = 'a table of models with labels of nodes, such as { big = { accelerator = "h200" } }'

_SECONDS_WORDING: Final = f"a number of seconds, or {DURATION_EXAMPLES}"

# Read as tables, and kept as pairs, because a configuration is immutable.
_Replicas = Annotated[
    tuple[tuple[str, int], ...],
    GetPydanticSchema(
        lambda _kind, handler: handler(
            Annotated[
                dict[Text, Annotated[int, Field(ge=1, le=10_000)]],
                AfterValidator(lambda table: tuple(table.items())),
                PlainSerializer(dict),
            ]
        )
    ),
]
_Labels = Annotated[
    tuple[tuple[str, tuple[tuple[str, str], ...]], ...],
    GetPydanticSchema(
        lambda _kind, handler: handler(
            Annotated[
                dict[Text, dict[Text, Text]],
                AfterValidator(lambda table: tuple((name, tuple(labels.items())) for name, labels in table.items())),
                PlainSerializer(lambda pairs: {name: dict(labels) for name, labels in pairs}),
            ]
        )
    ),
]


class Cluster(Table):
    """``[cluster]``: how ``modelyard deploy`` spreads the models over the nodes of a Ray cluster."""

    min_nodes: int = Field(default=1, ge=1, le=10_000, description="Nodes that there are at least.")
    max_nodes: int = Field(
        default=1, ge=1, le=10_000, description="Nodes that there are at most. Ray adds and removes nodes between."
    )
    target_queue: float = Field(
        default=4.0,
        gt=0,
        le=10_000,
        description="Requests that may wait on a node, on average. With more of them another node joins.",
    )
    placement: NodePlacement = Field(
        default="spread",
        description="Where a model is loaded that is asked for: `spread`, on the node with the least to do, or `pack`, "
        "on the fullest one with room for it, so that nodes become idle and can leave.",
    )
    replicas: _Replicas = Field(
        default=(),
        json_schema_extra={"wording": REPLICAS_WORDING, "default": {}},
        description="On how many nodes a model is kept loaded, by the model's id. Of one that is not named: as many as "
        "its requests need.",
    )
    labels: _Labels = Field(
        default=(),
        json_schema_extra={"wording": LABELS_WORDING, "default": {}},
        description="Labels that the nodes of a model must have in Ray, by the model's id.",
    )
    loads_per_hour: int = Field(
        default=120,
        ge=0,
        le=100_000,
        description="Loads by which models are spread anew in an hour, of all nodes together. Loads for requests do "
        "not count.",
    )
    drain_seconds: Annotated[float, Field(ge=0, le=86_400), BeforeValidator(read_duration)] = Field(
        default=30.0,
        json_schema_extra={"wording": _SECONDS_WORDING},
        description="How long the requests of a node that is about to leave may go on there. Then they go on at "
        "another node.",
    )

    def replicas_of(self, model: str) -> int | None:
        """Return on how many nodes a model is kept; None: as many as it needs."""
        return dict(self.replicas).get(model)

    def labels_of(self, model: str) -> Mapping[str, str]:
        """Return the labels that the nodes of a model must have."""
        found: dict[str, Any] = dict(self.labels)
        return dict(found.get(model, ()))
