"""What choosing a token costs, by sampler: `python bench/sampling.py [ARTIFACT] [--vocab N] [--text N]`.

Rows are the logits of an artifact on the licence of this repository, or else random: Gaussian ones of three
widths, of which the narrowest is flatter than a model ever is. Samplers take turns, so that a slow minute
hits all alike; the median counts. Time in the model, where there is one, is not counted.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from sardonyx.runtime.logits import LogprobLog, Pick, Row, Setting, make_picker
from sardonyx.runtime.params import SamplingParams

LIMIT_MS = 0.3
ROWS = 24
TURNS = 8
USUAL = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}

SAMPLERS: dict[str, dict[str, object]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top_k": {"temperature": 0.8, "top_k": 40},
    "top_p": {"temperature": 0.8, "top_p": 0.95},
    "top_p after a warm temperature": {"temperature": 1.5, "top_p": 0.95},
    "min_p": {"temperature": 0.8, "min_p": 0.05},
    "typical_p": {"temperature": 0.8, "typical_p": 0.9},
    "top_n_sigma": {"temperature": 0.8, "top_n_sigma": 1.0},
    "epsilon_cutoff": {"temperature": 0.8, "epsilon_cutoff": 3e-4},
    "eta_cutoff": {"temperature": 0.8, "eta_cutoff": 3e-4},
    "top_h": {"temperature": 0.8, "top_h": 0.5},
    "xtc": {"temperature": 0.8, "xtc_probability": 0.5},
    "dynamic temperature": {"temperature": 0.8, "dynatemp_range": 0.5},
    "mirostat 1": {"temperature": 0.8, "mirostat": 1},
    "mirostat 2": {"temperature": 0.8, "mirostat": 2},
    "adaptive_p": {"temperature": 0.8, "adaptive_target": 0.4, "min_p": 0.02},
    "adaptive_p of everything": {"temperature": 0.8, "adaptive_target": 0.4},
    "top_k, top_p, min_p": USUAL,
    "the same, repetition_penalty": {**USUAL, "repetition_penalty": 1.1},
    "the same, presence, frequency": {**USUAL, "presence_penalty": 0.5, "frequency_penalty": 0.2},
    "the same, no_repeat_ngram_size": {**USUAL, "no_repeat_ngram_size": 3},
    "the same, dry": {**USUAL, "dry_multiplier": 0.8, "dry_sequence_breakers": ((5,),)},
    "greedy, logprobs": {"logprobs": 5},
    "top_k, top_p, min_p, logprobs": {**USUAL, "logprobs": 5},
    "the same, as drawn": {**USUAL, "logprobs": 5, "logprobs_mode": "processed"},
}


def random_rows(vocab: int) -> list[Row]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, (1.5, 3, 6)[i % 3], vocab).astype(np.float32) for i in range(ROWS)]


def rows_of(artifact: Path) -> list[Row]:
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.strategies import Feed

    llm = LLM.load(artifact)
    tokens = llm.encode((Path(__file__).parent.parent / "LICENSE").read_text("utf-8"))[: 20 * ROWS]
    return [row.copy() for row in llm.logits(Feed([tokens], wanted=len(tokens)))[0][0][::20]]


def picker(options: dict[str, object], text: int, vocab: int) -> Pick:
    params = SamplingParams(**options)  # type: ignore[arg-type]
    log = LogprobLog(params.logprobs) if params.logprobs is not None else None
    return make_picker(params, 1, Setting(text, (0,), vocab), log)


def measured(rows: list[Row], text: int) -> dict[str, list[float]]:
    """Milliseconds of every step of every sampler, behind a text of so many tokens."""
    vocab = len(rows[0])
    prompt = np.random.default_rng(1).integers(0, vocab, text).tolist()
    pickers = {name: picker(options, text, vocab) for name, options in SAMPLERS.items()}
    texts = {name: list(prompt) for name in pickers}
    times: dict[str, list[float]] = {name: [] for name in pickers}
    for turn in range(-1, TURNS):
        for name, pick in pickers.items():
            for row in rows:
                started = perf_counter()
                token = pick(texts[name], row, len(texts[name]))
                elapsed = perf_counter() - started
                texts[name].append(token)
                if turn >= 0:  # the first turn counts the text and warms up
                    times[name].append(elapsed * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--text", type=int, default=1000, help="tokens before the first that is chosen")
    options = parser.parse_args()
    rows = rows_of(options.artifact) if options.artifact else random_rows(options.vocab)
    times = measured(rows, options.text)
    print(f"vocabulary {len(rows[0])}, text {options.text}, {ROWS * TURNS} steps each; milliseconds")
    print(f"{'SAMPLER':34}{'LEAST':>8}{'MEDIAN':>8}{'P90':>8}")
    for name, all_ms in times.items():
        late = "  above the limit" if median(all_ms) > LIMIT_MS else ""
        print(f"{name:34}{min(all_ms):8.3f}{median(all_ms):8.3f}{np.quantile(all_ms, 0.9):8.3f}{late}")


if __name__ == "__main__":
    main()
