"""The field ``lora`` of requests: which adapters of the model an answer is computed with.

Source: llama.cpp, tools/server/README.md, "POST /completion" and "POST /lora-adapters".
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from modelyard.config.adapter import AdapterScale
from modelyard.config.model import MAX_ADAPTERS

__all__ = ["MAX_ADAPTERS", "LoraScale"]


class LoraScale(BaseModel):
    """An adapter of the model, with its scale."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    id: Annotated[int, Field(ge=0)] = Field(description="Number of the adapter, as GET /lora-adapters lists it.")
    scale: AdapterScale = Field(description="Factor of what the adapter adds to the weights.")
