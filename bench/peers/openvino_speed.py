"""OpenVINO GenAI as a worker of side_by_side.py: from a folder of its own, or a GGUF file."""

import json
import sys

import numpy as np
import openvino
import openvino_genai

pipeline = openvino_genai.LLMPipeline(sys.argv[1], "CPU", INFERENCE_NUM_THREADS=int(sys.argv[2]))
print(json.dumps({"version": openvino_genai.__version__}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = job["new_tokens"]
    config.do_sample = False
    config.ignore_eos = True
    ids = np.array([job["tokens"]], np.int64)
    inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
    metrics = pipeline.generate(inputs, config).perf_metrics
    first = metrics.get_ttft().mean / 1e3
    rest = metrics.get_generate_duration().mean / 1e3 - first
    print(json.dumps({"first": first, "rest": rest}), flush=True)
