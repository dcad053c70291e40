"""A draft and its review: one model writes, another says what to improve, and the first writes again.

    python examples/draft_review.py

MODELYARD_MAX_TOKENS bounds each answer.
"""

import asyncio
import os
from pathlib import Path

from modelyard import MultiModelBuilder, TextModelBuilder

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / ".weights"
MAX_TOKENS = int(os.environ.get("MODELYARD_MAX_TOKENS", "96"))
TASKS = ("a haiku about rain", "a slogan for a bakery")

builder = (
    MultiModelBuilder()
    .add_model_with_alias("writer", TextModelBuilder(WEIGHTS / "smollm2-135m-instruct-q4_1.gguf"))
    .add_model_with_alias(
        "reviewer",
        TextModelBuilder(WEIGHTS / "gemma-3-270m-q4_k_m.gguf").with_chat_template(HERE / "gemma.jinja"),
    )
)


async def main() -> None:
    """Work on all tasks at once: their requests share the batches of both models."""
    async with await builder.build_async() as model:

        async def write(task: str) -> str:
            messages = [{"role": "user", "content": f"Write {task}."}]
            draft = await model.send_chat_request_with_model(messages, "writer", max_tokens=MAX_TOKENS)
            text = draft.choices[0].message.content
            review = await model.send_chat_request_with_model(
                f"Say in one sentence how to improve this text.\n\n{text}", "reviewer", max_tokens=MAX_TOKENS
            )
            advice = {"role": "user", "content": f"Write it again. {review.choices[0].message.content}"}
            better = await model.send_chat_request_with_model(
                [*messages, draft.choices[0].message, advice], "writer", max_tokens=MAX_TOKENS
            )
            return better.choices[0].message.content or ""

        for task, text in zip(TASKS, await asyncio.gather(*map(write, TASKS)), strict=True):
            print(f"{task}: {text}")


asyncio.run(main())
