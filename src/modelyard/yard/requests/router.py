"""Maps the name in a request to the id of a model, and checks whether the caller may use the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelyard.errors import ModelNotFound, ModelNotPermitted, ModelRequired
from modelyard.yard.requests.context import Caller, current_caller
from modelyard.yard.requests.model_names import ModelId

DEFAULT = "default"


class Router:
    """Maps names to ids. Names are matched exactly: an unknown name is never served by another model.

    Args:
        names: all names of each model, by its id.
        default: the id that an omitted name and "default" stand for; None: they are refused.
    """

    def __init__(self, names: Mapping[str, Sequence[str]], default: str | None) -> None:
        # Models may share a model_id, with an alias each. The shared name routes to the model that is listed under it,
        # else to the first of them.
        common = {name: model for model, all_names in reversed(list(names.items())) for name in all_names}
        self._ids = {**common, **{model: model for model in names}}
        self._listed = tuple(names)
        self._names = {model: frozenset(all_names) for model, all_names in names.items()}
        self.default = default

    def describe_models_to(self, caller: Caller) -> None:
        """Set the names that are hidden from ``caller``, and their last parts, which are names of files."""
        if caller.models is None:
            return
        shown = frozenset[str]().union(*(self._names.get(model, ()) for model in caller.models))
        hidden = frozenset[str]().union(*self._names.values()) - shown
        caller.hidden = hidden | {name.rpartition("/")[2] for name in hidden}

    def resolve(self, name: str) -> str | None:
        """Return the id of the model that ``name`` stands for, independent of the caller; None without such a model."""
        return self.default if name == DEFAULT else self._ids.get(name)

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
                raise ModelRequired(caller.permitted_models(self._listed))
            model: str | None = self.default
        else:
            model = self._ids.get(name)
        if model is None:
            assert name is not None
            raise ModelNotFound(name, caller.permitted_models(self._listed))
        if not caller.may_use(model):
            raise ModelNotPermitted(name or DEFAULT, caller.permitted_models(self._listed))
        caller.model = model
        return ModelId(model)
