"""Which models there are, by which names requests reach them, and under which name the residency keeps each."""

from __future__ import annotations

from modelyard.config import Config
from modelyard.yard.from_config import router


class ModelDirectory:
    """The configured models and their names. Use it on the yard's event loop.

    Attributes:
        config: the configuration in force.
        router: from the names in requests to the ids of models.
        residency_names: from the id of a configured model to its name in the residency. The two differ where settings
            of the model have changed while it served: its new engine runs beside the old one, under a name of its own.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.router = router(config)
        self.residency_names: dict[str, str] = {model.id: model.id for model in config.models}

    def replace_config(self, config: Config) -> None:
        """Route requests as ``config`` says from now on; ``residency_names`` has all of its models already."""
        self.config, self.router = config, router(config)
