"""Every rule for shaping a distribution from its definition, in plain Python: slow, obvious, float64.

Written without a look at how the runtime does it, from the papers and the sources of the systems that a
profile is named after. `python tests/slow_sampling.py` writes the vectors of tests/runtime/conformance.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

Row = list[float]
Kept = list[int]

BANNED = -math.inf
FINITE = 3.4028234663852886e38


# Of a row: which tokens stay. `live` are those that are still there.


def softmax(row: Row, live: Kept) -> dict[int, float]:
    top = max(row[token] for token in live)
    weights = {token: math.exp(row[token] - top) for token in live}
    total = math.fsum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def entropy(p: dict[int, float]) -> float:
    return -math.fsum(q * math.log(q) for q in p.values() if q > 0)


def ranked(row: Row, live: Kept) -> Kept:
    return sorted(live, key=lambda token: (-row[token], token))


def until(order: Kept, p: dict[int, float], mass: float) -> Kept:
    reached = 0.0
    for count, token in enumerate(order, 1):
        reached += p[token]
        if reached >= mass:
            return order[:count]
    return order


def top_k(row: Row, live: Kept, k: int, ties: str) -> Kept:
    best = ranked(row, live)[:k]
    return [token for token in live if row[token] >= row[best[-1]]] if ties == "all" else best


def top_p(row: Row, live: Kept, mass: float) -> Kept:
    return until(ranked(row, live), softmax(row, live), mass)


def min_p(row: Row, live: Kept, fraction: float) -> Kept:
    p = softmax(row, live)
    return [token for token in live if p[token] >= fraction * max(p.values())]


def typical_p(row: Row, live: Kept, mass: float, ties: str) -> Kept:
    p = softmax(row, live)
    away = {t: abs(-math.log(p[t]) - entropy(p)) if p[t] > 0 else math.inf for t in live}
    best = until(sorted(live, key=lambda token: (away[token], token)), p, mass)
    return [token for token in live if away[token] <= away[best[-1]] + 1e-9] if ties == "all" else best


def top_n_sigma(row: Row, live: Kept, n: float) -> Kept:
    values = [row[token] for token in live if row[token] > BANNED]
    mean = math.fsum(values) / len(values)
    sigma = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [token for token in live if row[token] >= max(values) - n * sigma]


def epsilon_cutoff(row: Row, live: Kept, epsilon: float) -> Kept:
    p = softmax(row, live)
    return [token for token in live if p[token] >= min(epsilon, max(p.values()))]


def eta_cutoff(row: Row, live: Kept, epsilon: float) -> Kept:
    h = entropy(softmax(row, live))
    return epsilon_cutoff(row, live, min(epsilon, math.sqrt(epsilon) * math.exp(-h)))


def top_h(row: Row, live: Kept, share: float) -> Kept:
    best, bound = [], share * entropy(softmax(row, live))
    for token in ranked(row, live):
        if best and entropy(softmax(row, [*best, token])) > bound:
            break
        best.append(token)
    return best


def top_h_of_transformers(row: Row, live: Kept, share: float) -> Kept:
    hundred = ranked(row, live)[:100]
    p = softmax(row, hundred)
    best, total = [], 0.0
    for token in hundred:
        total -= p[token] * math.log(p[token]) if p[token] > 0 else 0
        if best and total > share * entropy(p):
            break
        best.append(token)
    return best


def xtc(row: Row, live: Kept, threshold: float) -> Kept:
    p = softmax(row, live)
    top = [token for token in ranked(row, live) if p[token] >= threshold]
    return [token for token in live if token not in top[:-1]]


def zipf_count(row: Row, live: Kept, mu: float) -> int:
    p = softmax(row, live)
    best = [p[token] for token in ranked(row, live)[:100] if p[token] > 0]
    t = [math.log((i + 2) / (i + 1)) for i in range(len(best) - 1)]
    b = [math.log(one / other) for one, other in pairwise(best)]
    s = math.fsum(x * y for x, y in zip(t, b, strict=True)) / math.fsum(x * x for x in t)
    k = ((s - 1) * 2**mu / (1 - len(live) ** -(s - 1))) ** (1 / s)
    return max(1, min(len(live), int(k)))


def mirostat(row: Row, live: Kept, version: int, mu: float) -> Kept:
    if version == 1:
        return top_k(row, live, zipf_count(row, live, mu), "lowest")
    p = softmax(row, live)
    best = [token for token in live if p[token] > 0 and -math.log2(p[token]) <= mu]
    return best or ranked(row, live)[:1]


# Of a row and a text: new logits.


def bounded(old: float, new: float) -> float:
    return old if old == BANNED else max(-FINITE, min(FINITE, new))


def repetition(row: Row, seen: Sequence[int], penalty: float) -> Row:
    return [
        bounded(z, z / penalty if z > 0 else z * penalty) if token in seen else z
        for token, z in enumerate(row)
    ]


def counted(row: Row, seen: Sequence[int], presence: float, frequency: float) -> Row:
    return [
        bounded(z, z - frequency * seen.count(token) - presence) if token in seen else z
        for token, z in enumerate(row)
    ]


def dry(row: Row, text: list[int], last_n: int, options: dict[str, Any]) -> Row:
    """For every token, look for the longest end of the text that occurs earlier with the token behind it."""
    breakers = [tuple(breaker) for breaker in options.get("dry_sequence_breakers", ())]
    ends = [n for n in range(len(text) + 1) for b in breakers if text[max(0, n - len(b)) : n] == [*b]]
    limit = len(text) - max(ends, default=0)
    start = 0 if last_n == -1 else max(0, len(text) - last_n)
    row = row.copy()
    for token in {*text} - {breaker[0] for breaker in breakers if len(breaker) == 1}:
        longest = 0
        for place in range(start, len(text)):
            length = 0
            while length < min(place - start, limit) and text[place - 1 - length] == text[-1 - length]:
                length += 1
            longest = max(longest, length if text[place] == token else 0)
        excess = longest - options.get("dry_allowed_length", 2)
        if excess >= 0:
            growth = options.get("dry_base", 1.75)
            loss = math.inf if excess * math.log(growth) > 700 else options["dry_multiplier"] * growth**excess
            row[token] = bounded(row[token], row[token] - loss)
    return row


def banned(row: Row, tokens: Sequence[int]) -> Row:
    return [BANNED if token in tokens else z for token, z in enumerate(row)]


def completing(words: Sequence[Sequence[int]], text: list[int]) -> list[int]:
    return [
        word[-1]
        for word in words
        if len(text) >= len(word) - 1 and text[len(text) - len(word) + 1 :] == list(word[:-1])
    ]


# Systems.

EVERYWHERE = "logit_bias repetition_penalty frequency_penalty presence_penalty"
ORDER = {
    "openai": f"{EVERYWHERE} dry_multiplier no_repeat_ngram_size bad_words min_tokens "
    "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens allowed_token_ids "
    "forced_bos_token_id temperature top_n_sigma top_h top_k top_p min_p typical_p epsilon_cutoff eta_cutoff "
    "xtc_probability adaptive_target mirostat",
    "hf": "logit_bias repetition_penalty no_repeat_ngram_size bad_words min_tokens allowed_token_ids "
    "forced_bos_token_id exponential_decay_length_penalty suppress_tokens begin_suppress_tokens temperature "
    "top_h top_k top_p min_p typical_p epsilon_cutoff eta_cutoff",
    "vllm": "allowed_token_ids bad_words min_tokens logit_bias repetition_penalty frequency_penalty "
    "presence_penalty temperature min_p top_k top_p",
    "llama.cpp": f"{EVERYWHERE} dry_multiplier top_n_sigma top_k typical_p top_p min_p xtc_probability "
    "temperature adaptive_target mirostat",
}
ANSWER_ONLY = {
    "openai": ("frequency_penalty", "presence_penalty"),
    "vllm": ("frequency_penalty", "presence_penalty", "bad_words"),
}


def distribution(
    profile: str, options: dict[str, Any], prompt: list[int], answer: list[int], row: Row
) -> dict[int, float]:
    """Probabilities that the next token is drawn with, of those that can be drawn. Token 0 ends the answer.

    XTC's coin is taken to fall on its side, and mirostat and adaptive-p to be at their first token.
    """
    ties = "all" if profile in ("hf", "vllm") else "lowest"
    default_last_n = 64 if profile == "llama.cpp" else -1
    live = list(range(len(row)))

    def seen(name: str, last_n: int | None) -> list[int]:
        text = answer if name in ANSWER_ONLY.get(profile, ()) else prompt + answer
        last_n = default_last_n if last_n is None else last_n
        return text if last_n == -1 else text[max(0, len(text) - last_n) :]

    for name in ORDER[profile].split():
        value = options.get(name)
        text = prompt + answer
        looked_at = seen(name, options.get("repeat_last_n"))
        match name:
            case "temperature":
                row, live = tempered(row, live, options)
            case _ if value is None:
                continue
            case "logit_bias":
                row = [bounded(z, z + value.get(token, 0.0)) for token, z in enumerate(row)]
            case "repetition_penalty":
                row = repetition(row, looked_at, value)
            case "frequency_penalty":
                row = counted(row, looked_at, 0.0, value)
            case "presence_penalty":
                row = counted(row, looked_at, value, 0.0)
            case "dry_multiplier":
                row = dry(row, text, options.get("dry_penalty_last_n", default_last_n), options)
            case "no_repeat_ngram_size":
                grams = [text[i : i + value] for i in range(len(text) - value + 1)]
                row = banned(row, completing(grams, text))
            case "bad_words":
                row = banned(row, completing(value, seen(name, -1)))
            case "min_tokens":
                row = banned(row, [0] if len(answer) < value else [])
            case "exponential_decay_length_penalty":
                start, factor = value
                if len(answer) > start:
                    row = [row[0] + abs(row[0]) * (factor ** (len(answer) - start) - 1), *row[1:]]
            case "suppress_tokens":
                row = banned(row, value)
            case "begin_suppress_tokens":
                row = banned(row, [] if answer else value)
            case "allowed_token_ids":
                row = banned(row, [token for token in live if token not in value])
            case "forced_bos_token_id":
                row = row if answer else [0.0 if token == value else BANNED for token in live]
            case "top_k":
                live = top_k(row, live, value, ties)
            case "typical_p":
                live = typical_p(row, live, value, ties)
            case "top_h":
                live = (top_h_of_transformers if profile == "hf" else top_h)(row, live, value)
            case "xtc_probability":
                live = xtc(row, live, options.get("xtc_threshold", 0.1))
            case "adaptive_target":
                row = adapted(row, live, value)
            case "mirostat":
                live = mirostat(row, live, value, 2 * options.get("mirostat_tau", 5.0))
            case _:
                rule: Callable[[Row, Kept, float], Kept] = globals()[name]
                live = rule(row, live, value)
    return {token: q for token, q in softmax(row, sorted(live)).items() if q > 0}


def tempered(row: Row, live: Kept, options: dict[str, Any]) -> tuple[Row, Kept]:
    degree, reach = options.get("temperature", 0.0), options.get("dynatemp_range", 0.0)
    if reach:
        possible = [token for token in live if row[token] > BANNED]
        if len(possible) < 2:
            return row, live
        share = entropy(softmax(row, live)) / math.log(len(possible))
        lowest = max(0.0, degree - reach)
        degree = lowest + (degree + reach - lowest) * share ** options.get("dynatemp_exponent", 1.0)
    return (row, ranked(row, live)[:1]) if degree == 0 else ([z / degree for z in row], live)


def adapted(row: Row, live: Kept, target: float) -> Row:
    p = softmax(row, live)
    away = {token: abs(p[token] - target) / 0.3 for token in live}
    return [
        5 - 10 * away[t] ** 2 / (1 + away[t]) if t in away and z > BANNED else z for t, z in enumerate(row)
    ]


# Vectors.

OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 3.0},
    {"temperature": 0.7},
    {"temperature": 1.5, "min_p": 0.2},
    {"temperature": 1.0, "top_k": 4},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 0.8, "top_k": 6, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    {"temperature": 2.0, "top_k": 5, "top_p": 0.6},
    {"temperature": 1.0, "typical_p": 0.4},
    {"temperature": 1.3, "typical_p": 0.8, "top_k": 8},
    {"temperature": 1.0, "epsilon_cutoff": 0.05},
    {"temperature": 1.0, "eta_cutoff": 0.2},
    {"temperature": 0.9, "top_h": 0.5},
    {"temperature": 1.7, "top_n_sigma": 1.0},
    {"temperature": 0.6, "top_n_sigma": 0.7, "top_p": 0.9},
    {"temperature": 1.2, "xtc_probability": 1.0, "xtc_threshold": 0.15},
    {"temperature": 0.0, "xtc_probability": 1.0},
    {"temperature": 1.0, "dynatemp_range": 0.5},
    {"temperature": 0.4, "dynatemp_range": 0.8, "dynatemp_exponent": 2.0, "min_p": 0.02},
    {"temperature": 1.0, "mirostat": 1, "mirostat_tau": 1.0},
    {"temperature": 1.0, "mirostat": 2, "mirostat_tau": 1.2},
    {"temperature": 0.8, "min_p": 0.02, "adaptive_target": 0.3},
    {"temperature": 1.0, "presence_penalty": 0.8},
    {"temperature": 1.0, "frequency_penalty": 0.5},
    {"temperature": 1.0, "presence_penalty": -0.5, "frequency_penalty": 0.25, "repetition_penalty": 1.3},
    {"temperature": 1.0, "repetition_penalty": 1.5, "repeat_last_n": 3},
    {"temperature": 1.0, "frequency_penalty": 0.3, "repeat_last_n": -1},
    {"temperature": 1.0, "no_repeat_ngram_size": 2},
    {"temperature": 1.0, "no_repeat_ngram_size": 3},
    {"temperature": 1.0, "dry_multiplier": 0.5, "dry_sequence_breakers": [[9]]},
    {
        "temperature": 1.0,
        "dry_multiplier": 1.0,
        "dry_base": 2.0,
        "dry_allowed_length": 1,
        "dry_penalty_last_n": 6,
    },
    {"temperature": 1.0, "exponential_decay_length_penalty": [2, 1.5]},
    {"temperature": 1.0, "exponential_decay_length_penalty": [40, 1.5]},
    {"temperature": 1.0, "logit_bias": {"3": 2.5, "7": -4.0}},
    {"temperature": 1.0, "logit_bias": {"1": -3.0}, "repetition_penalty": 2.0},
    {"temperature": 1.0, "bad_words": [[5], [3, 1, 4], [2, 6]]},
    {"temperature": 1.0, "suppress_tokens": [2, 4, 6]},
    {"temperature": 1.0, "begin_suppress_tokens": [1, 3, 5]},
    {"temperature": 1.0, "allowed_token_ids": [1, 2, 3, 5, 8]},
    {"temperature": 1.0, "min_tokens": 6},
    {"temperature": 1.0, "forced_bos_token_id": 5},
]
TEXTS: list[tuple[list[int], list[int]]] = [
    ([3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8]),
    ([2, 7, 1, 8], []),
    ([3, 1, 4, 9, 2, 3, 1], [4, 2, 3, 1]),
    ([1, 2] * 40, [1, 2, 1]),
]


def vectors(profile: str) -> list[dict[str, Any]]:
    """Logits, options and text, and the distribution that they give. Ties are among the logits."""
    noise = random.Random(0)
    found = []
    supported = {*ORDER[profile].split()}
    if profile in ("openai", "llama.cpp"):
        supported |= {"repeat_last_n", "dynatemp_range"}
    whole = {*ORDER["openai"].split(), "repeat_last_n", "dynatemp_range"}
    for options in OPTIONS:
        cold = options["temperature"] == 0 and "xtc_probability" in options and profile != "llama.cpp"
        for prompt, answer in TEXTS:
            row = [round(noise.gauss(0, 2) * 8) / 8 for _ in range(12)]
            if cold or {*options} & whole - supported:
                continue
            given = {**options, "logit_bias": {int(t): b for t, b in options.get("logit_bias", {}).items()}}
            p = distribution(profile, given, prompt, answer, row)
            found.append(
                {
                    "options": options,
                    "prompt": prompt,
                    "answer": answer,
                    "logits": row,
                    "distribution": {str(token): float(f"{q:.12g}") for token, q in sorted(p.items())},
                }
            )
    return found


FOLDER = Path(__file__).parent / "runtime" / "conformance"

if __name__ == "__main__":
    for name in ORDER:
        lines = ",\n".join(json.dumps(vector) for vector in vectors(name))
        (FOLDER / f"{name}.json").write_text(f"[\n{lines}\n]\n", "utf-8")
