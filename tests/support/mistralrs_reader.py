"""The reference, as its Python package has it, in a virtual environment of its own: ``mistralrs_reader.py JOBS``.

JOBS is a JSON list of objects with model, prompt and tokens, and either from_uqff (a shard), or isq and write_uqff. One
line of output for each: what the model says, as JSON.
"""

import json
import sys

from mistralrs import ChatCompletionRequest, Runner, Which

for job in json.loads(sys.argv[1]):
    which = Which.Plain(model_id=job["model"], from_uqff=job.get("from_uqff"), write_uqff=job.get("write_uqff"))
    runner = Runner(which=which, in_situ_quant=job.get("isq"), max_seqs=1)
    request = ChatCompletionRequest(
        model="default",
        messages=[{"role": "user", "content": job["prompt"]}],
        max_tokens=job["tokens"],
        temperature=0.0,
    )
    answer = runner.send_chat_completion_request(request)
    print(json.dumps(answer.choices[0].message.content), flush=True)
    del runner
