"""What must not depend on how tokens are fed: measured on texts, each way against another.

A prompt at once or token by token, whole or in pieces, alone or beside others, fresh or after a rewind: the
logits are the same, to the bit where the kernels allow it. It knows nothing of texts or recipes beyond the
tokens and limits it is given.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from sardonyx.export.certificate import Invariant, Limits
from sardonyx.export.checkpoint import Float32
from sardonyx.export.divergence import compare
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import MASKED
from sardonyx.runtime.strategies import Feed

LENGTH = 64
"""Tokens of each sequence, if the model holds as many; the last quarter of them is compared."""

CUTS = (0.18, 0.75, 0.84)
"""Where a sequence is cut into chunks, as shares of its length; the second is where comparing begins."""

RAGGED = (0.67, 0.43, 0.58, 0.34, 0.52)
"""Shares of their length after which sequences meet in a batch."""

SINGLES, RUNS = 3, (3, 7, 2, 5, 4)
"""How many tokens they then take one by one, and how many at once after that."""

WAYS = 5
"""Invariants that are measured."""

Sequences = Sequence[Sequence[int]]


def invariants(llm: LLM, windows: Sequences, limits: Limits) -> Iterator[Invariant]:
    """Feed the beginning of each window in several ways. At least two windows are needed.

    Between token by token and all at once kernels differ, so rounding does: what it does to the logits is
    bounded by the recipe's noise. All else is equal to the bit, but for two kinds of model, for which company
    is noise too. Experts stored as floats are multiplied with all tokens of an expert at once; in a portable
    graph a row stands behind as many masked positions as the longest row in the pass is longer.
    """
    sequences = [window[:LENGTH] for window in windows]
    start = int(len(sequences[0]) * CUTS[1])
    whole = [_whole(llm, tokens, start) for tokens in sequences]
    stepped = [_stepped(llm, tokens, start) for tokens in sequences]
    chunked = [_chunked(llm, tokens, start) for tokens in sequences]
    yield _invariant("cached step = full recompute", stepped, whole, (limits.noise, limits.flips))
    yield _invariant("chunked prefill = one-shot", chunked, whole, (limits.noise, limits.flips))
    mixed = llm.manifest.target in MASKED or any(
        ".experts." in name and kind == "float32" for name, kind in llm.manifest.weights.items()
    )
    exact = (limits.noise, limits.flips) if mixed else (0.0, 0.0)
    yield _invariant("batch = alone", _batched(llm, sequences, start), stepped, exact)
    yield _invariant("ragged batch = alone", *_ragged(llm, sequences), exact)
    yield _invariant("after keep and rewind = fresh", _rewound(llm, sequences, start), stepped[:1] * 2, exact)


def _invariant(
    name: str,
    found: Sequence[Float32],
    expected: Sequence[Float32],
    limits: tuple[float | None, float | None],
) -> Invariant:
    """Compare logits `[positions, vocab]` of sequences."""
    a, b = np.concatenate(found), np.concatenate(expected)
    difference = compare(b, a, [0] * (len(b) + 1))
    return Invariant(
        name=name,
        positions=len(b),
        worst=float(np.abs(a - b).max()),
        kl_mean=float(difference.kl.mean()),
        flips=int((~difference.top1).sum()),
        limit=limits[0],
        flips_limit=limits[1],
    )


def _whole(llm: LLM, tokens: Sequence[int], start: int) -> Float32:
    ((logits,),) = llm.logits(Feed([tokens], wanted=len(tokens) - start))
    return logits


def _stepped(llm: LLM, tokens: Sequence[int], start: int) -> Float32:
    _, *steps = llm.logits(Feed([tokens[:start]], wanted=0), *(Feed([[token]]) for token in tokens[start:]))
    return np.concatenate([logits for (logits,) in steps])


def _chunked(llm: LLM, tokens: Sequence[int], start: int) -> Float32:
    cuts = [0, *(int(len(tokens) * cut) for cut in CUTS), len(tokens)]
    feeds = (Feed([tokens[a:b]], wanted=b - a if a >= start else 0) for a, b in pairwise(cuts))
    return np.concatenate([logits for (logits,) in llm.logits(*feeds)])


def _batched(llm: LLM, sequences: Sequences, start: int) -> list[Float32]:
    """All sequences side by side, a token each at a time."""
    steps = (Feed([[tokens[at]] for tokens in sequences]) for at in range(start, len(sequences[0])))
    _, *answers = llm.logits(Feed([tokens[:start] for tokens in sequences], wanted=0), *steps)
    return [np.concatenate(rows) for rows in zip(*answers, strict=True)]


def _ragged(llm: LLM, sequences: Sequences) -> tuple[list[Float32], list[Float32]]:
    """Sequences of different pasts, side by side and each alone: single tokens, then runs of several."""
    plans = [
        _ragged_plan(tokens, int(len(tokens) * share), run)
        for tokens, share, run in zip(sequences, RAGGED, RUNS, strict=False)
    ]
    together = llm.logits(*(Feed(pieces, wanted=1) for pieces in zip(*plans, strict=True)))
    alone = [llm.logits(*(Feed([piece], wanted=1) for piece in plan)) for plan in plans]
    return (
        [np.concatenate(rows) for rows in zip(*together, strict=True)],
        [np.concatenate([logits for (logits,) in answers]) for answers in alone],
    )


def _ragged_plan(tokens: Sequence[int], start: int, run: int) -> list[Sequence[int]]:
    rest = start + SINGLES
    return [tokens[:start], *([token] for token in tokens[start:rest]), tokens[rest : rest + run]]


def _rewound(llm: LLM, sequences: Sequences, start: int) -> list[Float32]:
    """Leave the path for another sequence's tokens, return, and go on from a rewound row and from a fork."""
    tokens, astray = sequences[0], sequences[1]
    back = Feed([[tokens[start]]] * 2, keep=[(0, start), (0, start)])
    steps = (Feed([[token]] * 2) for token in tokens[start + 1 :])
    detour = (Feed([astray[:3]], wanted=0), Feed([astray[3:4]], wanted=0))
    answers = llm.logits(Feed([tokens[:start]], wanted=0), *detour, back, *steps)[3:]
    return [np.concatenate(rows) for rows in zip(*answers, strict=True)]
