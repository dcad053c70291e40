"""The operations of one step while they are being listed: what the functions for each kind of layer share. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.formats.gguf.header import GgufHeader
from modelyard.yard.memory.layer_shapes import Shapes, has_attention, number_of
from modelyard.yard.memory.step_buffer import StepGraph

F16, F32, I64 = 2, 4, 8

# Source: llama.cpp, src/llama-context.cpp, llama_init_from_model: "flash_attn is not compatible with Grok".
WITHOUT_FLASH_ATTENTION: Final = frozenset({"grok"})


@dataclass(frozen=True, slots=True)
class Step:
    """How much is computed at once.

    Attributes:
        cells: of the KV cache.
        tokens: of all sequences together.
        sequences: that the tokens belong to.
        outputs: tokens whose logits are computed.
        has_flash_attention: whether attention is fused; otherwise the scores of every head are written to memory.
        has_embeddings: whether embeddings, such as those of an image, may take the place of tokens.
        window_cells: cells of layers with a sliding window; 0: as many as the others have.
    """

    cells: int
    tokens: int
    sequences: int
    outputs: int
    has_flash_attention: bool = True
    has_embeddings: bool = True
    window_cells: int = 0


class StepOperations:
    """Adds the operations of a step to a graph. Tensors are identified by their numbers in the graph.

    Attributes:
        header, step: of the model, and what is computed.
        graph: the operations so far.
        width: values of a token between two layers.
        masks: masks of attention, one for each kind of layer.
        token_ids, output_ids: inputs with the tokens, and with the numbers of those whose logits are computed.
        state_indices: input with the numbers of the recurrent states.
        next_layer: tensors of the layer behind the current one.
    """

    def __init__(self, header: GgufHeader, step: Step) -> None:
        self.header = header
        self.step = step
        self.graph = StepGraph()
        self.width = number_of(header, "embedding_length")
        self.masks: list[int] = []
        self.token_ids = self.output_ids = self.state_indices = -1
        self.next_layer: Shapes = {}
        self._gathered: int | None = None

    @property
    def has_flash_attention(self) -> bool:
        """Whether attention is fused, also for this architecture."""
        return self.step.has_flash_attention and self.header.architecture not in WITHOUT_FLASH_ATTENTION

    @property
    def mask_bytes(self) -> int:
        """Bytes of a mask of attention."""
        return self._mask_bytes(self.step.cells)

    @property
    def window_mask_bytes(self) -> int:
        """Bytes of a mask of layers with a sliding window."""
        return self._mask_bytes(self.step.window_cells or self.step.cells)

    def _mask_bytes(self, cells: int) -> int:
        return (F16 if self.has_flash_attention else F32) * cells * self.step.tokens

    def number(self, key: str) -> int:
        """Return a number of the architecture; 0 where the header has none."""
        return number_of(self.header, key)

    def floats(self, values: int) -> int:
        """Return the bytes of ``values`` numbers for each token."""
        return self.step.tokens * values * F32

    def op(self, values: int, *inputs: int) -> int:
        """Add an operation whose result, ``values`` numbers for each token, needs a place of its own."""
        return self.graph.operation(self.floats(values), *inputs)

    def in_place(self, values: int, *inputs: int, views: Sequence[int] = ()) -> int:
        """Add an operation whose result may take the place of one of ``inputs``, but not of one of ``views``."""
        return self.graph.in_place(self.floats(values), *inputs, views=views)

    def states(self, values: int) -> int:
        """Gather the states of the step's sequences. Source: src/llama-graph.cpp, build_rs."""
        return self.graph.operation(self.step.sequences * values * F32, self.state_indices)

    def convolution_states(self) -> int:
        """Return the values that Mamba's convolution keeps for a sequence. Source: src/llama-hparams.cpp, n_embd_r."""
        inner, state, kernel = (self.number(f"ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel"))
        return max(kernel - 1, 0) * (inner + 2 * self.number("ssm.group_count") * state)

    def gathered_states(self) -> int:
        """Return the states of Mamba's convolution, gathered ahead or now."""
        gathered, self._gathered = self._gathered, None
        return self.states(self.convolution_states()) if gathered is None else gathered

    def gather_ahead(self) -> None:
        """Gather the states of the next layer's convolution, where it is Mamba's.

        ggml computes that before the end of the current layer, because a result is computed when it is first used.
        """
        if "ssm_in.weight" in self.next_layer and not has_attention(self.next_layer):
            self._gathered = self.states(self.convolution_states())

    def expand(self, shapes: Shapes) -> None:
        """Compute everything so far, because a result is used here. Source: ggml_build_forward_expand."""
        if "ffn_gate_inp.weight" not in shapes:
            self.gather_ahead()
