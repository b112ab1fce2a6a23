"""Greedy tokens by onnxruntime-genai, in an environment of its own. Reads and writes JSON; see
../same_tokens.py."""

import json
import sys

import onnxruntime_genai as og

job = json.load(sys.stdin)
model = og.Model(job["folder"])
tokenizer = og.Tokenizer(model)
answers = []
for prompt in job["prompts"]:
    params = og.GeneratorParams(model)
    length = len(prompt["tokens"]) + job["new_tokens"]
    params.set_search_options(do_sample=False, max_length=length)
    generator = og.Generator(model, params)
    generator.append_tokens(prompt["tokens"])
    found = []
    while len(found) < job["new_tokens"] and not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    answers.append({"encoded": [int(t) for t in tokenizer.encode(prompt["text"])], "tokens": found})
json.dump({"version": og.__version__, "answers": answers}, sys.stdout)
