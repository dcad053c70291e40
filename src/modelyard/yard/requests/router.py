"""Maps the name in a request to the id of a model, and checks whether the caller may use the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from modelyard.config.adapter import SEPARATOR, TOGETHER, Adapter
from modelyard.errors import ModelNotFound, ModelNotPermitted, ModelRequired
from modelyard.protocol.adapters import AdapterUse
from modelyard.yard.requests.context import Caller, current_caller
from modelyard.yard.requests.model_names import ModelId

DEFAULT = "default"


class Router:
    """Maps names to ids. Names are matched exactly: an unknown name is never served by another model.

    Args:
        names: all names of each model, by its id.
        default: the id that an omitted name and "default" stand for; None: they are refused.
        adapters: the adapters of each model that has any, by its id.
    """

    def __init__(
        self,
        names: Mapping[str, Sequence[str]],
        default: str | None,
        adapters: Mapping[str, Sequence[Adapter]] | None = None,
    ) -> None:
        # Models may share a model_id, with an alias each. The shared name routes to the model that is listed under it,
        # else to the first of them.
        common = {name: model for model, all_names in reversed(list(names.items())) for name in all_names}
        self._ids = {**common, **{model: model for model in names}}
        self.default = default
        self._uses = {
            model: {adapter.name: AdapterUse(adapter.name, adapter.scale) for adapter in its}
            for model, its in (adapters or {}).items()
        }
        self._adapters = _short_names(adapters or {})
        listed = {model: [f"{model}{SEPARATOR}{name}" for name in self._uses.get(model, ())] for model in names}
        self._listed = {each: model for model in names for each in (model, *listed[model])}
        self._names = {model: frozenset((*all_names, *listed[model])) for model, all_names in names.items()}

    def describe_models_to(self, caller: Caller) -> None:
        """Set the names that are hidden from ``caller``, and their last parts, which are names of files."""
        if caller.models is None:
            return
        shown = frozenset[str]().union(*(self._names.get(model, ()) for model in caller.models))
        hidden = frozenset[str]().union(*self._names.values()) - shown
        caller.hidden = hidden | {name.rpartition("/")[2] for name in hidden}

    def resolve(self, name: str) -> str | None:
        """Return the id of the model that ``name`` stands for, independent of the caller; None without such a model."""
        return self._find(name)[0]

    def adapters_of(self, name: str | None) -> tuple[AdapterUse, ...]:
        """Return the adapters that ``name``, which routes to a model, stands for, with their configured scales."""
        return () if name is None else self._find(name)[1]

    def _find(self, name: str) -> tuple[str | None, tuple[AdapterUse, ...]]:
        """Return the id of the model that ``name`` stands for, and its adapters; None where there is no such model."""
        if name == DEFAULT:
            return self.default, ()
        if (model := self._ids.get(name)) is not None:
            return model, ()
        if (short := self._adapters.get(name)) is not None:
            return short
        base, separator, parts = name.rpartition(SEPARATOR)
        model = (self.default if base == DEFAULT else self._ids.get(base)) if separator else None
        if model is None:
            return None, ()
        uses = self._uses.get(model, {})
        found = [uses.get(part) for part in parts.split(TOGETHER)]
        named = tuple(use for use in found if use is not None)
        return (model, named) if len(named) == len(found) else (None, ())

    def route(self, name: str | None) -> ModelId:
        """Return the id of the model that ``name`` stands for, and record it as what the caller asked for.

        Raises:
            ModelNotFound: no model has that name.
            ModelRequired: there is no name, and no default is configured.
            ModelNotPermitted: the caller may not use the model. The error repeats the name that the caller sent.
        """
        caller = current_caller()
        self.describe_models_to(caller)
        caller.has_asked = True
        if name is None or name == DEFAULT:
            if self.default is None:
                raise ModelRequired(self._known(caller))
            model: str | None = self.default
        else:
            model, _ = self._find(name)
        if model is None:
            assert name is not None
            raise ModelNotFound(name, self._known(caller))
        if not caller.may_use(model):
            raise ModelNotPermitted(name or DEFAULT, self._known(caller))
        caller.model = model
        return ModelId(model)

    def _known(self, caller: Caller) -> tuple[str, ...]:
        """Return the ids that the caller may know, those of models with an adapter included."""
        return tuple(each for each, model in self._listed.items() if caller.may_use(model))


def _short_names(adapters: Mapping[str, Sequence[Adapter]]) -> dict[str, tuple[str, tuple[AdapterUse, ...]]]:
    """Return the names of adapters without the model: their aliases, and their names where no two models have one."""
    count = Counter(adapter.name for its in adapters.values() for adapter in its)
    short: dict[str, tuple[str, tuple[AdapterUse, ...]]] = {}
    for model, its in adapters.items():
        for adapter in its:
            found = model, (AdapterUse(adapter.name, adapter.scale),)
            if count[adapter.name] == 1:
                short.setdefault(adapter.name, found)
            if adapter.alias is not None:
                short[adapter.alias] = found
    return short
