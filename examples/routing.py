"""Routing by task: a small model says what is asked, and only what is hard goes to a large one.

    python examples/routing.py

The large model is loaded when it is first needed. MODELYARD_MAX_TOKENS bounds each answer.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from modelyard import MultiModelBuilder, TextModelBuilder

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / ".weights"
MAX_TOKENS = int(os.environ.get("MODELYARD_MAX_TOKENS", "64"))


class Triage(BaseModel):
    """What the small model decides; its answer cannot be anything else."""

    difficulty: Literal["easy", "hard"]


small = TextModelBuilder(WEIGHTS / "smollm2-135m-instruct-q4_1.gguf")
large = TextModelBuilder(WEIGHTS / "gemma-3-270m-q4_k_m.gguf").with_chat_template(HERE / "gemma.jinja")

builder = (
    MultiModelBuilder()
    .add_model_with_alias("small", small.with_pinned())
    .add_model_with_alias("large", large.with_load("on-demand").with_idle_unload_seconds(600))
)

with builder.build() as model:
    for question in ("What is 2 + 2?", "Prove that there are infinitely many primes."):
        asked = f"Is this question easy or hard?\n\n{question}"
        triage = model.generate_structured_with_model(Triage, asked, "small", temperature=0, max_tokens=64)
        name = "large" if triage.difficulty == "hard" else "small"
        response = model.send_chat_request_with_model(question, name, max_tokens=MAX_TOKENS)
        print(f"{question} ({triage.difficulty}, so {name}): {response.choices[0].message.content}")
