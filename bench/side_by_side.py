"""sardonyx beside other programs, in one run: each answers the same prompts in turn, so that a slow minute
hits all alike. Prints medians, and how many times as fast as each of them sardonyx is.

    python bench/side_by_side.py ARTIFACT \\
        --peer onnxruntime-genai ENV/bin/python FOLDER \\
        --peer llama.cpp ENV/bin/python MODEL.gguf \\
        --peer openvino-genai ENV/bin/python FOLDER

Each peer runs in an environment of its own (onnxruntime-genai, llama-cpp-python, openvino-genai), from files
of its own kind, with the same number of threads. Prompts are random tokens; every answer is greedy, and as
long as asked. The first token's time is the prompt's; the others' the decoding's.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

from sardonyx.runtime.threads import usable_cores

PEERS = Path(__file__).parent / "peers"
WORKERS = {
    "sardonyx": "sardonyx_speed.py",
    "onnxruntime-genai": "genai_speed.py",
    "llama.cpp": "llama_cpp_speed.py",
    "openvino-genai": "openvino_speed.py",
}


PAUSE_S = 0.3
"""Before each request: after an answer threads look for work for a while, at the cost of other programs."""


class Worker:
    """A program that answers one request at a time: a JSON line in, a JSON line out."""

    def __init__(self, name: str, python: str, model: str, threads: int) -> None:
        self.name = name
        command = [python, str(PEERS / WORKERS[name]), model, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.version = self._line()["version"]

    def ask(self, tokens: list[int], new_tokens: int) -> dict[str, Any]:
        """Seconds to the `first` token, and for the `rest`."""
        assert self._process.stdin is not None
        print(json.dumps({"tokens": tokens, "new_tokens": new_tokens}), file=self._process.stdin, flush=True)
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # some programs talk
                answer: dict[str, Any] = json.loads(line)
                return answer
        sys.exit(f"{self.name} has ended; try: {' '.join(map(str, self._process.args))}")  # type: ignore[arg-type]


def main() -> None:
    options = arguments()
    threads = options.threads or usable_cores()
    asked = [("sardonyx", sys.executable, options.artifact), *(options.peer or [])]
    workers = [Worker(*one, threads) for one in asked]
    for worker in workers:
        worker.ask([1, 2, 3], 2)
    prompts = random.Random(0)
    for length in options.prompt_tokens:
        seen: dict[str, list[tuple[float, float]]] = {worker.name: [] for worker in workers}
        for turn in range(options.repeats):
            tokens = [prompts.randrange(100, options.vocabulary) for _ in range(length)]
            for worker in workers[turn % len(workers) :] + workers[: turn % len(workers)]:
                sleep(PAUSE_S)
                found = worker.ask(tokens, options.new_tokens)
                speed = (length / found["first"], (options.new_tokens - 1) / found["rest"])
                seen[worker.name].append(speed)
        show(length, workers, seen)


def show(length: int, workers: list[Worker], seen: dict[str, list[tuple[float, float]]]) -> None:
    print(f"\nprompt of {length} tokens       prefill tokens/s  decode tokens/s  sardonyx's, of theirs")
    own = seen[workers[0].name]
    for worker in workers:
        theirs = seen[worker.name]
        prefill, decode = (median(column) for column in zip(*theirs, strict=True))
        pairs = list(zip(own, theirs, strict=True))
        ratios = [median(mine[i] / other[i] for mine, other in pairs) for i in (0, 1)]
        name = f"{worker.name} {worker.version}"
        print(
            f"{name:28} {prefill:17.1f} {decode:16.1f}  {ratios[0]:.2f} x prefill, {ratios[1]:.2f} x decode"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("artifact")
    parser.add_argument("--peer", nargs=3, action="append", metavar=("NAME", "PYTHON", "MODEL"))
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--vocabulary", type=int, default=40_000, help="random tokens are below it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
