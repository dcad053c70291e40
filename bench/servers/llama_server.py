"""llama.cpp's own server: ``llama_server.py MODEL PORT CONTEXT PARALLEL THREADS``, until its input ends."""

import sys

import xllamacpp

model, port, context, parallel, threads = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_ctx = context
params.n_parallel = parallel
params.kv_unified = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
