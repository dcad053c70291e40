"""Which model a request means, an id, an alias, or the default; and whether its caller may use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelyard.errors import ModelNotFound, ModelNotPermitted, ModelRequired
from modelyard.yard.requests.context import Caller, current_caller

DEFAULT = "default"


class Router:
    """Names to ids. Names are matched exactly: an unknown one is never served by another model.

    Args:
        names: every model's id -> all names that mean it.
        default: the id that an omitted name and "default" mean; None: they are refused.
    """

    def __init__(self, names: Mapping[str, Sequence[str]], default: str | None) -> None:
        # A name that several have in common, the model_id behind their aliases, means the first of them, or the one
        # that is listed under it.
        common = {name: model for model, all_names in reversed(list(names.items())) for name in all_names}
        self._ids = {**common, **{model: model for model in names}}
        self._listed = tuple(names)
        self._names = {model: frozenset(all_names) for model, all_names in names.items()}
        self.default = default

    def describe_models_to(self, caller: Caller) -> None:
        """Have ``caller`` know which names it must not hear; those of files are the last parts of ids."""
        if caller.models is None:
            return
        shown = frozenset[str]().union(*(self._names.get(model, ()) for model in caller.models))
        hidden = frozenset[str]().union(*self._names.values()) - shown
        caller.hidden = hidden | {name.rpartition("/")[2] for name in hidden}

    def resolve(self, name: str) -> str | None:
        """The id of the model that ``name`` means, whoever asks."""
        return self.default if name == DEFAULT else self._ids.get(name)

    def route(self, name: str | None) -> str:
        """The id of the model that ``name`` means.

        Raises:
            ModelNotFound: no model has that name.
            ModelRequired: no name, and no default is configured.
            ModelNotPermitted: the caller may use others alone. It hears the name that it used, and no other one.
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
        return model
