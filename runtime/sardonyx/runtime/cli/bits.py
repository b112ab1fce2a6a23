"""Which kinds of weights have which bits, and what decided that, as the rows of a table."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any


def bits_rows(weights: Mapping[str, str], sensitivity: Mapping[str, float]) -> list[tuple[str, ...]]:
    """A row for each kind of weight, layers and experts taken together; where bits were searched, with the
    divergence that all of its weights in 4 bits would cause.
    """
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    harm: dict[str, float] = defaultdict(float)
    for name, quantizer in weights.items():
        kinds[_kind(name)][quantizer] += 1
        harm[_kind(name)] += sensitivity.get(name, 0.0)
    rows: list[tuple[str, ...]] = [("WEIGHTS", "STORED AS", *(["KL IF IN 4 BITS"] if sensitivity else []))]
    for kind, quantizers in kinds.items():
        stored = ", ".join(f"{count} x {quantizer}" for quantizer, count in quantizers.items())
        rows.append((kind, stored, *([f"{harm[kind]:.4f}"] if sensitivity else [])))
    return rows


def searched_rows(searched: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each choice that a search of bits tried: how much is in 8 bits, what it takes and does."""
    heading = ("TRIED", "BYTES", "KL PREDICTED", "KL MEASURED")
    rows = (
        (
            f"{tried['raised']} of {tried['weights']} weights in 8 bits",
            f"{tried['bytes']:,}",
            f"{tried['predicted']:.4f}",
            "-" if tried["kl"] is None else f"{tried['kl']:.4f}",
        )
        for tried in searched
    )
    return [heading, *rows]


def _kind(name: str) -> str:
    return re.sub(r"\.\d+\.", ".", name.removesuffix(".weight").removeprefix("model."))
