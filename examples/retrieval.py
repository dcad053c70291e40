"""A tiny retrieval example: embeddings find the passage that a question is about, and a chat model answers from it.

    python examples/retrieval.py path/to/embedding-model

The argument is a GGUF file or a folder of an embedding model, such as all-MiniLM-L6-v2. MODELYARD_MAX_TOKENS bounds
the answer.
"""

import os
import sys
from pathlib import Path

from modelyard import EmbeddingModelBuilder, MultiModelBuilder, TextModelBuilder

WEIGHTS = Path(__file__).parent.parent / ".weights"
MAX_TOKENS = int(os.environ.get("MODELYARD_MAX_TOKENS", "64"))
PASSAGES = [
    "The bakery opens at seven and closes at noon; on Sundays it stays closed.",
    "Bicycles may be taken on the train outside of rush hours, for two euros.",
    "The library lends books for four weeks; longer loans are asked for at the desk.",
]
QUESTION = "For how long can I borrow a novel?"

builder = (
    MultiModelBuilder()
    .add_model_with_alias("chat", TextModelBuilder(WEIGHTS / "smollm2-135m-instruct-q4_1.gguf"))
    .add_model_with_alias("embedder", EmbeddingModelBuilder(sys.argv[1]))
)

with builder.build() as model:
    passages = model.generate_embeddings_with_model(PASSAGES, "embedder").vectors
    question = model.generate_embeddings_with_model(QUESTION, "embedder").vectors[0]
    # All vectors have length 1, so their product is the cosine of the angle between them.
    best = PASSAGES[(passages @ question).argmax()]
    print(f"found: {best}")
    response = model.send_chat_request(f"{best}\n\nAnswer from this: {QUESTION}", max_tokens=MAX_TOKENS)
    print(f"answer: {response.choices[0].message.content}")
