"""Whether other programs say what sardonyx says, given the same weights in their own layouts.

    sardonyx export SOURCE -o own
    sardonyx export SOURCE --layout genai -o genai
    sardonyx export SOURCE --layout transformers.js -o js

    python bench/same_tokens.py own --genai genai --python ENV/bin/python
    python bench/same_tokens.py own --transformers-js js --modules FOLDER

ENV is an environment with onnxruntime-genai, FOLDER one in which `npm install @huggingface/transformers` was
run. The other program encodes each text itself, too. Exit code 1 if a token differs.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sardonyx.runtime import LLM, SamplingParams

PEERS = Path(__file__).parent / "peers"
PROMPTS = (
    "The capital of France is",
    "An onyx is a banded variety of",
    "def fibonacci(n):\n    ",
    "1, 2, 4, 8, 16,",
    "Ein Stein, der aus Lagen besteht, heißt",
)


def main() -> None:
    options = arguments()
    llm = LLM.load(options.artifact, threads=options.threads)
    params = SamplingParams(max_tokens=options.new_tokens, temperature=0.0)
    prompts = [{"text": text, "tokens": llm.encode(text)} for text in PROMPTS]
    ends = set(llm.manifest.tokens.eos)
    ours = [
        [token for token in llm.generate(prompt["tokens"], params).tokens if token not in ends]
        for prompt in prompts
    ]
    job = {"prompts": prompts, "new_tokens": options.new_tokens}
    peers = []
    if options.genai:
        command = [options.python, str(PEERS / "genai_greedy.py")]
        peers.append(("onnxruntime-genai", command, options.genai, Path.cwd()))
    if options.transformers_js:
        command = ["node", str((PEERS / "transformers_js_greedy.mjs").resolve())]
        peers.append(("transformers.js", command, options.transformers_js, options.modules))
    different = 0
    for name, command, folder, place in peers:
        theirs = ask(command, {**job, "folder": str(folder.resolve())}, place)
        print(f"{name} {theirs['version']}")
        for prompt, mine, answer in zip(prompts, ours, theirs["answers"], strict=True):
            found = [token for token in answer["tokens"] if token not in ends]
            pairs = enumerate(zip(mine, found, strict=False))
            same = next((i for i, (a, b) in pairs if a != b), min(len(mine), len(found)))
            encoded = "same" if answer["encoded"] == prompt["tokens"] else "OTHER"
            print(f"  {same:3} of {len(mine)} tokens equal, {encoded} encoding: {prompt['text']!r}")
            different += mine != found or encoded != "same"
    sys.exit(1 if different else 0)


def ask(command: list[str], job: dict[str, Any], place: Path) -> dict[str, Any]:
    """What a peer answers to a job."""
    run = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, cwd=place)
    if run.returncode:
        sys.exit(f"{' '.join(command)}:\n{run.stderr}")
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("artifact", type=Path, help="sardonyx's own")
    parser.add_argument("--genai", type=Path, metavar="DIR", help="the same in the layout genai")
    parser.add_argument("--python", default=sys.executable, help="of an environment with onnxruntime-genai")
    parser.add_argument("--transformers-js", type=Path, metavar="DIR", help="the same in that layout")
    parser.add_argument("--modules", type=Path, default=Path.cwd(), help="where node_modules is")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
