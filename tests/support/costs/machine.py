"""How long things take on the simulated machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GIB: Final = 1 << 30

BITS_PER_WEIGHT: Final = 4.8
"""Those of Q4_K_M."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A pool of nodes that share their memory; the defaults are those of nodes with a GPU of 48 GiB each.

    Attributes:
        nodes: that compute and read; a model computes on one of them at a time.
        node_bytes: memory for models of a node.
        memory_bytes_per_s: bandwidth that a decoded token's weights are read with.
        flops: of a node, for prompts.
        row_s_per_billion: seconds that a further sequence adds to a step, for each billion of parameters.
        load_fixed_s: seconds of a load beside its reading: headers, tokenizer, context.
        wake_s: seconds of a load that finds the weights parked.
        free_s: seconds until a model that is freed has given its memory back.
    """

    nodes: int = 8
    node_bytes: int = 48 * GIB
    memory_bytes_per_s: float = 1500e9
    flops: float = 100e12
    row_s_per_billion: float = 0.04e-3
    load_fixed_s: float = 0.5
    wake_s: float = 0.3
    free_s: float = 0.2

    @property
    def budget_bytes(self) -> int:
        """Bytes that models may take together."""
        return self.nodes * self.node_bytes


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A model of the simulation.

    Attributes:
        name: its id.
        billions: of its parameters.
        source_bytes_per_s: bandwidth that its file is read with.
    """

    name: str
    billions: float
    source_bytes_per_s: float

    @property
    def weights_bytes(self) -> int:
        """Bytes of its file, and of its weights in memory."""
        return round(self.billions * 1e9 * BITS_PER_WEIGHT / 8)

    @property
    def token_bytes(self) -> int:
        """Bytes of the KV cache for a token: 128 KiB for 8 billion parameters, 320 KiB for 70."""
        return round(131_072 * (self.billions / 8) ** 0.42)

    @property
    def context_bytes(self) -> int:
        """Bytes of its context, of 16,384 tokens, and of its buffers."""
        return 16_384 * self.token_bytes + 200_000_000

    @property
    def total_bytes(self) -> int:
        """Bytes that it takes while it is loaded."""
        return self.weights_bytes + self.context_bytes

    def load_s(self, machine: Machine) -> float:
        """Return the seconds that its load takes where no other model is read."""
        return machine.load_fixed_s + self.weights_bytes / self.source_bytes_per_s

    def prefill_s(self, machine: Machine, tokens: int) -> float:
        """Return the seconds that a prompt takes on a node of its own."""
        return 2e9 * self.billions * tokens / machine.flops

    def step_s(self, machine: Machine, sequences: int) -> float:
        """Return the seconds that a token takes for each of so many sequences, on a node of their own."""
        return self.weights_bytes / machine.memory_bytes_per_s + sequences * self.billions * machine.row_s_per_billion
