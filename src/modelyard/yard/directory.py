"""Which models there are, by which names requests reach them, and under which name the residency keeps each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from modelyard.config import Adapter, Config, Model
from modelyard.errors import InvalidRequest
from modelyard.protocol.adapters import AdapterUse
from modelyard.yard.from_config import router
from modelyard.yard.requests.context import Caller, current_caller
from modelyard.yard.requests.model_names import ResidencyName


class ModelDirectory:
    """The configured models and their names. Use it on the yard's event loop.

    Attributes:
        config: the configuration in force.
        started_config: the one that the process was started with.
        router: from the names in requests to the ids of models.
        followers: are called with each configuration that takes the place of another.
        set_scales: by the id of a model: scales of its adapters for requests that name none, where they were set.
        residency_names: from the id of a configured model to the name of its present version in the residency.
    """

    def __init__(self, config: Config) -> None:
        self.config = self.started_config = config
        self.router = router(config)
        self._remote = _remote_ids(config)
        self.set_scales: dict[str, Mapping[str, float]] = {}
        self.followers: list[Callable[[Config], None]] = []
        self.residency_names = {model.id: ResidencyName(model.id) for model in config.models}
        self._models = _by_id(config)

    def replace_config(self, config: Config) -> None:
        """Route requests by ``config`` from now on; all of its models must be in ``residency_names``."""
        self.config, self.router, self._remote = config, router(config), _remote_ids(config)
        self._models = _by_id(config)
        for follow in self.followers:
            follow(config)

    def configured(self, name: str | None) -> Model:
        """Return how a model is configured, by id or alias; None is the default.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
        """
        return self._models[self.router.route(name)]

    def adapters_of(
        self, name: str | None, model: str, chosen: Sequence[tuple[int, float]] | None
    ) -> tuple[AdapterUse, ...]:
        """Return the adapters that a request uses.

        Args:
            name: of the model in the request.
            model: its id.
            chosen: numbers of its adapters, in the order of the configuration, with scales; None: as the name says.

        Raises:
            InvalidRequest: there is no adapter of such a number.
        """
        if chosen is None and (named := self.router.adapters_of(name)):
            return named
        adapters = self._models[model].adapters
        if chosen is None:
            scales = self.applied_scales(model, adapters)
            return tuple(AdapterUse(each.name, scales[each.name]) for each in adapters if each.name in scales)
        if (wrong := next((number for number, _ in chosen if not 0 <= number < len(adapters)), None)) is not None:
            known = f"Its adapters are 0 to {len(adapters) - 1}" if adapters else "It has none"
            raise InvalidRequest(f"lora: '{model}' has no adapter {wrong}. {known}: see GET /lora-adapters.", "lora")
        return tuple(AdapterUse(adapters[number].name, scale) for number, scale in chosen)

    def applied_scales(self, model: str, adapters: Sequence[Adapter]) -> Mapping[str, float]:
        """Return the scales that the adapters of a model have for requests that name none; others are not used."""
        configured = {each.name: each.scale for each in adapters if each.applied}
        return self.set_scales.get(model, configured)

    def system_of(self, model: str) -> str | None:
        """Return the system message of a model, by id, for conversations that have none; None without one."""
        return self._models[model].system

    def is_remote(self, model: str) -> bool:
        """Whether other servers have a model, by id."""
        return model in self._remote

    def is_known(self, name: str) -> bool:
        """Whether the caller may know of a model of that name, if there is one."""
        caller, model = self.caller(), self.router.resolve(name)
        return caller.models is None or (model is not None and caller.may_use(model))

    def caller(self) -> Caller:
        """Return the current caller, with the names that are hidden from it set."""
        caller = current_caller()
        self.router.describe_models_to(caller)
        return caller


def _by_id(config: Config) -> dict[str, Model]:
    return {model.id: model for model in config.models}


def _remote_ids(config: Config) -> frozenset[str]:
    return frozenset(model.id for model in config.models if model.is_remote)
