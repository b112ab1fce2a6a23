"""llama.cpp, by llama-cpp-python, as a worker of side_by_side.py."""

import json
import sys
from time import perf_counter

import llama_cpp
import numpy as np

threads = int(sys.argv[2])
model = llama_cpp.Llama(sys.argv[1], n_ctx=4096, n_threads=threads, n_threads_batch=threads, verbose=False)
print(json.dumps({"version": llama_cpp.__version__}), flush=True)


def next_token() -> int:
    logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
    return int(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())


for line in sys.stdin:
    job = json.loads(line)
    model.reset()
    model._ctx.kv_cache_clear()
    started = perf_counter()
    model.eval(job["tokens"])
    token = next_token()
    first = perf_counter()
    for _ in range(job["new_tokens"] - 1):
        model.eval([token])
        token = next_token()
    print(json.dumps({"first": first - started, "rest": perf_counter() - first}), flush=True)
