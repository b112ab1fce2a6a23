"""sardonyx as a worker of side_by_side.py."""

import json
import sys
from importlib.metadata import version

from sardonyx.runtime import LLM, SamplingParams

llm = LLM.load(sys.argv[1], threads=int(sys.argv[2]))
print(json.dumps({"version": version("sardonyx")}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    params = SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=job["new_tokens"])
    usage = llm.generate(job["tokens"], params).usage
    print(json.dumps({"first": usage.first_token_s, "rest": usage.total_s - usage.first_token_s}), flush=True)
