"""The limit: ``llama_decode`` in a loop, greedy, and nothing else. ``bare_loop.py MODEL CONTEXT THREADS``.

Each line of its input is a JSON object with prompts and tokens, each of its output one with the times of an answer to
all of them in one batch.
"""

import ctypes
import json
import os
import sys
import time

# As Modelyard sets it; see docs/performance.md.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp.llama_cpp as lib

path, context, threads = sys.argv[1], *map(int, sys.argv[2:])
MOST = 512
silent = lib.llama_log_callback(lambda *_: None)
lib.llama_log_set(silent, ctypes.c_void_p(0))
lib.llama_backend_init()
model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
vocab = lib.llama_model_get_vocab(model)
params = lib.llama_context_default_params()
params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = context, MOST, MOST, 8
params.n_threads = params.n_threads_batch = threads
params.kv_unified = True
ctx = lib.llama_init_from_model(model, params)
sampler = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
lib.llama_sampler_chain_add(sampler, lib.llama_sampler_init_greedy())
batch = lib.llama_batch_init(MOST, 0, 1)


def put(token, position, sequence, wants_logits):
    """Add a token to the batch."""
    at = batch.n_tokens
    batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, position, 1, wants_logits
    batch.seq_id[at][0] = sequence
    batch.n_tokens += 1


def decode():
    """Compute the batch."""
    if lib.llama_decode(ctx, batch):
        raise SystemExit("llama_decode failed")


print("{}", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    began = time.perf_counter()
    lib.llama_memory_clear(lib.llama_get_memory(ctx), True)
    lengths, next_tokens = [], []
    for sequence, prompt in enumerate(asked["prompts"]):
        raw = prompt.encode()
        tokens = (lib.llama_token * (len(raw) + 8))()
        count = lib.llama_tokenize(vocab, raw, len(raw), tokens, len(tokens), True, True)
        for start in range(0, count, MOST):
            batch.n_tokens = 0
            for at in range(start, min(count, start + MOST)):
                put(tokens[at], at, sequence, at == count - 1)
            decode()
        lengths.append(count)
        next_tokens.append(lib.llama_sampler_sample(sampler, ctx, -1))
    first = time.perf_counter()
    for step in range(asked["tokens"] - 1):
        batch.n_tokens = 0
        for sequence, token in enumerate(next_tokens):
            put(token, lengths[sequence] + step, sequence, True)
        decode()
        next_tokens = [lib.llama_sampler_sample(sampler, ctx, at) for at in range(len(next_tokens))]
    last = time.perf_counter()
    said = {"began": began, "first": first, "last": last, "tokens": asked["tokens"]}
    print(json.dumps(said), flush=True)
