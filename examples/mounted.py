"""The yard inside of another FastAPI application: its API under /llm, and a route of the application's own.

uvicorn --app-dir examples mounted:app

curl http://127.0.0.1:8000/llm/v1/models
curl 'http://127.0.0.1:8000/title?text=Rain+fell+all+night.'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from modelyard import TextModelBuilder, create_app

WEIGHTS = Path(__file__).parent.parent / ".weights"
MAX_TOKENS = int(os.environ.get("MODELYARD_MAX_TOKENS", "24"))

model = TextModelBuilder(WEIGHTS / "smollm2-135m-instruct-q4_1.gguf").build()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Free the model when the application ends."""
    with model:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/llm", create_app(model))


@app.get("/title")
def title(text: str) -> str:
    """A title for a text. FastAPI runs this on a thread, where a Model may wait."""
    response = model.send_chat_request(f"Write a title for this text: {text}", max_tokens=MAX_TOKENS)
    return response.choices[0].message.content or ""
