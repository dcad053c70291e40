"""Two models in one script: each request goes to the model that it names.

    python examples/two_models.py

MODELYARD_MAX_TOKENS bounds each answer.
"""

import os
from pathlib import Path

from modelyard import MultiModelBuilder, TextModelBuilder

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / ".weights"
MAX_TOKENS = int(os.environ.get("MODELYARD_MAX_TOKENS", "64"))

builder = (
    MultiModelBuilder()
    .add_model_with_alias("smollm2", TextModelBuilder(WEIGHTS / "smollm2-135m-instruct-q4_1.gguf"))
    .add_model_with_alias(
        "gemma3",
        TextModelBuilder(WEIGHTS / "gemma-3-270m-q4_k_m.gguf").with_chat_template(HERE / "gemma.jinja"),
    )
)

with builder.build() as model:
    for name in model.list_models():
        response = model.send_chat_request_with_model("Why is the sky blue?", name, max_tokens=MAX_TOKENS)
        print(f"{name}: {response.choices[0].message.content}")

    print("streamed: ", end="")
    with model.stream_chat_request("Count to five.", max_tokens=MAX_TOKENS) as stream:
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()
