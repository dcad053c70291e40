"""``[cluster]``: how the models are spread over the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema, PlainSerializer

from modelyard.config.base import Table, Text
from modelyard.config.durations import DURATION_EXAMPLES, read_duration
from modelyard.config.names import NodePlacement

REPLICAS_WORDING: Final = 'a table of models with their numbers of nodes, or "auto", such as { small = 2 }'
LABELS_WORDING: Final = 'a table of models with labels of nodes, such as { big = { accelerator = "h200" } }'

_SECONDS_WORDING: Final = f"a number of seconds, or {DURATION_EXAMPLES}"

MAX_NODES: Final = 10_000
_REPLICAS_OF_ONE: Final = f'a whole number from 1 to {MAX_NODES}, or "auto"'


def _read_replicas(value: Any) -> int | Literal["auto"]:
    """Return on how many nodes a model is kept.

    Raises:
        ValueError: it is neither such a number nor "auto".
    """
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_NODES):
        return cast(int | Literal["auto"], value)
    raise ValueError(_REPLICAS_OF_ONE)


# Read as tables, and kept as pairs, because a configuration is immutable.
_Replicas = Annotated[
    tuple[tuple[str, int | Literal["auto"]], ...],
    GetPydanticSchema(
        lambda _kind, handler: handler(
            Annotated[
                dict[
                    Text,
                    Annotated[
                        int | Literal["auto"],
                        Field(json_schema_extra={"wording": _REPLICAS_OF_ONE}),
                        BeforeValidator(_read_replicas),
                    ],
                ],
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

    min_nodes: int = Field(
        default=1,
        ge=0,
        le=MAX_NODES,
        description="Nodes that there are at least. 0: none while nothing is asked for; the first request waits "
        "for one.",
    )
    max_nodes: int = Field(
        default=1, ge=1, le=MAX_NODES, description="Nodes that there are at most. Ray adds and removes nodes between."
    )
    target_queue: float = Field(
        default=4.0,
        gt=0,
        le=10_000,
        description="Requests that may wait on a node, on average. With more of them another node joins.",
    )
    target_first_token: Annotated[float | None, Field(gt=0, le=3600), BeforeValidator(read_duration)] = Field(
        default=None,
        json_schema_extra={"wording": _SECONDS_WORDING},
        description="How long the first token of an answer may take, on average and without the load of its model. "
        "Where it takes longer, another node joins. Takes the place of `target_queue`.",
    )
    idle_seconds: Annotated[float, Field(ge=10, le=86_400), BeforeValidator(read_duration)] = Field(
        default=600.0,
        json_schema_extra={"wording": _SECONDS_WORDING},
        description="How long a node must have been unnecessary before it leaves.",
    )
    start_seconds: Annotated[float, Field(ge=0, le=86_400), BeforeValidator(read_duration)] = Field(
        default=300.0,
        json_schema_extra={"wording": _SECONDS_WORDING},
        description="How long a request waits for a node where none is connected. 0: it is refused at once.",
    )
    placement: NodePlacement = Field(
        default="spread",
        description="Where a model is loaded that is asked for: `spread`, on the node with the least to do, or `pack`, "
        "on the fullest one with room for it, so that nodes become idle and can leave.",
    )
    replicas: _Replicas = Field(
        default=(),
        json_schema_extra={"wording": REPLICAS_WORDING, "default": {}},
        description='On how many nodes a model is kept loaded, by its id. "auto", and where it is not named: as '
        "many as its requests need.",
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
        return self.fixed_replicas.get(model)

    @property
    def fixed_replicas(self) -> Mapping[str, int]:
        """On how many nodes models are kept, whatever is asked for, by their ids."""
        return {model: count for model, count in self.replicas if count != "auto"}

    def labels_of(self, model: str) -> Mapping[str, str]:
        """Return the labels that the nodes of a model must have."""
        found: dict[str, Any] = dict(self.labels)
        return dict(found.get(model, ()))
