"""onnxruntime-genai as a worker of side_by_side.py. Its threads are what genai_config.json says."""

import json
import sys
from time import perf_counter

import onnxruntime_genai as og

config = og.Config(sys.argv[1])
overlay = {"model": {"decoder": {"session_options": {"intra_op_num_threads": int(sys.argv[2])}}}}
config.overlay(json.dumps(overlay))
model = og.Model(config)
print(json.dumps({"version": og.__version__}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    total = len(job["tokens"]) + job["new_tokens"]
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=total, min_length=total, do_sample=False)
    generator = og.Generator(model, params)
    started = perf_counter()
    generator.append_tokens(job["tokens"])
    generator.generate_next_token()
    first = perf_counter()
    for _ in range(job["new_tokens"] - 1):
        generator.generate_next_token()
    print(json.dumps({"first": first - started, "rest": perf_counter() - first}), flush=True)
