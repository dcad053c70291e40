"""The reference as its Python package has it, a runner without a server: ``mistralrs_runner.py MODEL``.

Each line of its input is a JSON object with prompt and tokens, each of its output one with the times of an answer.
"""

import json
import sys
import time
from pathlib import Path

from mistralrs import ChatCompletionRequest, Runner, Which

model = Path(sys.argv[1])
runner = Runner(which=Which.GGUF(quantized_model_id=str(model.parent), quantized_filename=model.name))
print("{}", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    began = time.perf_counter()
    first = last = 0.0
    tokens = 0
    request = ChatCompletionRequest(
        model="default",
        messages=[{"role": "user", "content": asked["prompt"]}],
        max_tokens=asked["tokens"],
        temperature=0.0,
        stream=True,
        ignore_eos=True,
    )
    for _ in runner.send_chat_completion_request(request):
        last = time.perf_counter()
        first = first or last
        tokens += 1
    print(json.dumps({"began": began, "first": first, "last": last, "tokens": tokens}), flush=True)
