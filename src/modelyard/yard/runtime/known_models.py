"""What is known of models by their configuration and their files: their kind, what they take, and their headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelyard.hub import Kind, Modalities
from modelyard.yard.runtime.adapter_files import NO_ADAPTERS, AdapterFiles
from modelyard.yard.runtime.header_facts import HeaderFacts, header_facts
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles


class KnownModels:
    """What is known of models. They are named as in the residency.

    Args:
        specs: returns the models that are configured.
    """

    def __init__(self, specs: Callable[[], Mapping[str, ModelSpec]]) -> None:
        self._specs = specs
        self._kinds: dict[str, Kind] = {}
        self._modalities: dict[str, Modalities] = {}
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._facts: dict[str, HeaderFacts] = {}
        self._adapters: dict[str, AdapterFiles] = {}

    def kind(self, model: str) -> Kind | None:
        """Return what the model does; None until its files were read, unless it is configured."""
        spec = self._specs().get(model)
        match None if spec is None else spec.model.kind:
            case "text" | "embedding" | "rerank" | "multimodal" as configured:
                return configured
        return self._kinds.get(model)

    def modalities(self, model: str) -> Modalities | None:
        """Return what the model takes beside text; None until its files were read, unless its kind is configured."""
        spec = self._specs().get(model)
        if spec is not None and spec.model.kind in ("text", "embedding", "rerank"):
            return Modalities()
        return self._modalities.get(model)

    def warnings(self, model: str) -> tuple[str, ...]:
        """Return what the model cannot do here although its makers promise it; () until its files were read."""
        return self._warnings.get(model, ())

    def facts(self, model: str) -> HeaderFacts | None:
        """Return the facts in the header of the model's file; None until its files were read."""
        return self._facts.get(model)

    def adapters(self, model: str) -> AdapterFiles:
        """Return the adapters of the model; none until its files were read."""
        return self._adapters.get(model, NO_ADAPTERS)

    def note(self, model: str, files: SpecFiles) -> None:
        """Keep the facts in the files of a model."""
        self._kinds[model], self._modalities[model] = files.model.kind, files.model.modalities
        self._warnings[model] = files.model.warnings
        self._adapters[model] = files.adapters
        if (spec := self._specs().get(model)) is not None:
            self._facts[model] = header_facts(files.model, spec.model)

    def note_adapters(self, model: str, adapters: AdapterFiles) -> None:
        """Keep the adapters that a model has from now on."""
        self._adapters[model] = adapters

    def discard(self, model: str) -> None:
        """Drop the facts in the files of a model."""
        self._kinds.pop(model, None)
        self._modalities.pop(model, None)
        self._warnings.pop(model, None)
        self._facts.pop(model, None)
        self._adapters.pop(model, None)
