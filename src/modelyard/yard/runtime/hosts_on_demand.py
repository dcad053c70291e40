"""The hosts of engines, which are made when the first engine needs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.config import effective_cpu, isolation_of
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel
from modelyard.yard.runtime.isolation import Host
from modelyard.yard.runtime.model_spec import ModelSpec
from modelyard.yard.runtime.placements import may_be_remote, placement_of

if TYPE_CHECKING:
    from modelyard.yard.runtime.engine_hosts import EngineHosts


class HostsOnDemand:
    """Threads and processes of engines. Its methods may be called on any thread.

    Args:
        auto_host: as in ``Yard``.
        specs: returns the models that are configured.
    """

    def __init__(self, auto_host: Host, specs: Callable[[], Mapping[str, ModelSpec]]) -> None:
        self._auto_host, self._specs = auto_host, specs
        self._hosts: EngineHosts | None = None
        self._making = threading.Lock()

    @property
    def are_computing(self) -> bool:
        """Whether an engine computes at the moment."""
        return self._hosts is not None and self._hosts.are_computing

    def hosts(self) -> EngineHosts:
        """Return the hosts, which the first call makes."""
        # Imported here: it loads llama.cpp, which a scripted yard and the command line's --help do without.
        from modelyard.yard.runtime.engine_hosts import EngineHosts

        with self._making:
            if self._hosts is None:
                isolations = [isolation_of(spec.config, spec.model) for spec in self._specs().values()]
                expects_processes = self._auto_host == "process" and any(each != "thread" for each in isolations)
                self._hosts = EngineHosts(self._auto_host, expects_processes=expects_processes)
            return self._hosts

    def isolates(self, spec: ModelSpec, paths: Sequence[Path], known_devices: Sequence[LlamaDevice]) -> bool:
        """Whether the engine of a model gets a process of its own.

        Args:
            spec: the model.
            paths: its files, as far as they are on this machine.
            known_devices: all devices that were listed at the start.

        Raises:
            UnusableModel: a file cannot be read.
        """
        try:
            return self.hosts().isolates(
                paths,
                isolation_of(spec.config, spec.model),
                is_tried=spec.config.runtime.trial,
                offloads=not effective_cpu(spec.config.models),
                may_be_remote=may_be_remote(placement_of(spec.config, spec.model), known_devices),
            )
        except OSError as error:
            raise UnusableModel(f"{Path(error.filename).name} cannot be read: {error.strerror}.") from error

    def close(self) -> None:
        """End the processes that held engines. All engines must have ended."""
        if self._hosts is not None:
            self._hosts.close()
