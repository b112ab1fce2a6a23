"""What a provider's attention gets right, found out by asking it.

A provider's kernel may be wrong on some device, without a word: onnxruntime's WebGPU plugin 0.4 has one for
32 tokens and more that needs subgroups of 32 lanes, which a software adapter has not, and takes rows of
several tokens behind a past one at a time, and leaves soft caps out. So what a session is asked to do is
tried first, on made up numbers, against attention as it is defined (Vaswani et al. 2017, equation 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.backends.passes import Rules, alone, single
from sardonyx.runtime.backends.sketch import FLOAT, FLOAT16, INT32, Port, sketch
from sardonyx.runtime.onnx_outline import Outline

Floats = NDArray[np.float32]
Run = Callable[[bytes, dict[str, NDArray[Any]]], Floats]
"""A model and its inputs in, its first output out."""

OPERATOR, SINKS = "GroupQueryAttention", 11
"""What is asked, and which of its inputs are sinks."""

HEADS, WIDTH, CAPACITY = 2, 64, 128
NEAR = 24
"""A window that hides something of so short a text."""

TOLERANCE = 1e-2
"""Half precision inside is rounding; a kernel that is wrong is wrong by tenths."""

WIDTHS = (64, 31, 1)
"""Tokens of a row at once, the most first."""


@dataclass(frozen=True)
class Kind:
    """What a graph asks of attention besides attention."""

    window: bool = False
    softcap: float = 0.0
    sinks: bool = False
    half: bool = False

    def __str__(self) -> str:
        asked = [name for name in ("window", "softcap", "sinks", "half") if getattr(self, name)]
        return "attention" + (" with " + ", ".join(asked) if asked else "")


KINDS = (Kind(), Kind(window=True), Kind(softcap=2.0), Kind(sinks=True))
"""One of each, for whoever has no graph yet."""


def kinds(outline: Outline) -> list[Kind]:
    """The kinds of attention in a graph, each once."""
    half = any(port.dtype == "float16" for port in outline.inputs)
    found = (
        Kind(
            window=node.attributes.get("local_window_size", -1) > 0,
            softcap=node.attributes.get("softcap", 0.0),
            sinks=bool(node.input(SINKS)),
            half=half,
        )
        for node in outline.nodes
        if node.kind == OPERATOR
    )
    return list(dict.fromkeys(found))


def rules(run: Run, kind: Kind) -> Rules | None:
    """What may share a pass on the provider behind `run`; None when not even one token of one row comes out
    right.
    """
    model = _model(kind)

    def right(pasts: list[int], count: int) -> bool:
        feeds, expected = _question(kind, pasts, count)
        try:
            found = run(model, feeds)
        except Exception:  # refused, in one of many ways
            return False
        return bool(np.allclose(found, expected, atol=TOLERANCE * (2 if kind.half else 1), rtol=0))

    widest = next((width for width in WIDTHS if right([0], width) and right([40], width)), None)
    if widest is None:
        return None
    together = single if right([40, 3, 17], 1) else alone
    return Rules(together, widest=None if widest == WIDTHS[0] else widest)


def all_rules(run: Run, outline: Outline) -> Rules | Kind:
    """What may share a pass of a graph; or else the kind of attention in it that comes out wrong."""
    found = []
    for kind in kinds(outline):
        right = rules(run, kind)
        if right is None:
            return kind
        found.append(right)
    together = single if all(right.together is single for right in found) else alone
    return Rules(together, widest=min((right.widest for right in found if right.widest), default=None))


def _question(kind: Kind, pasts: list[int], count: int) -> tuple[dict[str, NDArray[Any]], Floats]:
    rng = np.random.default_rng(0)
    rows = len(pasts)
    qkv = rng.standard_normal((rows, count, 3, HEADS, WIDTH)).astype(np.float32)
    keys, values = rng.standard_normal((2, rows, HEADS, CAPACITY, WIDTH)).astype(np.float32)
    feeds = {
        "qkv": qkv.reshape(rows, count, -1),
        "past_key": keys.copy(),
        "past_value": values.copy(),
        "lengths": np.array([past + count - 1 for past in pasts], np.int32),
        "total": np.array(max(pasts) + count, np.int32),
    }
    sinks = np.array([0.5, -0.5], np.float32) if kind.sinks else None
    if sinks is not None:
        feeds["sinks"] = sinks
    expected = np.empty((rows, count, HEADS, WIDTH), np.float32)
    for row, past in enumerate(pasts):
        queries, new_keys, new_values = qkv[row].swapaxes(0, 1)
        keys[row, :, past : past + count] = new_keys.swapaxes(0, 1)
        values[row, :, past : past + count] = new_values.swapaxes(0, 1)
        for at in range(count):
            end = past + at + 1
            seen = slice(max(0, end - NEAR) if kind.window else 0, end)
            expected[row, at] = _attention(kind, queries[at], keys[row, :, seen], values[row, :, seen], sinks)
    if kind.half:
        feeds |= {name: a.astype(np.float16) for name, a in feeds.items() if a.dtype == np.float32}
    return feeds, expected.reshape(rows, count, -1)


def _attention(kind: Kind, query: Floats, keys: Floats, values: Floats, sinks: Floats | None) -> Floats:
    """One token's, `[heads, width]`, of all that it sees."""
    scores = np.einsum("hw,hpw->hp", query, keys) / WIDTH**0.5
    if kind.softcap:
        scores = kind.softcap * np.tanh(scores / kind.softcap)
    weights = np.exp(scores)  # of scores that are near zero
    total = weights.sum(-1) + (0 if sinks is None else np.exp(sinks))
    mixed: Floats = np.einsum("hp,hpw->hw", weights / total[:, None], values)
    return mixed


def _model(kind: Kind) -> bytes:
    dtype = FLOAT16 if kind.half else FLOAT
    sinks = [None] * 4 + [Port("sinks", dtype, 1)] if kind.sinks else []  # tables, positions, bias before
    return sketch(
        OPERATOR,
        [
            Port("qkv", dtype, 3),
            None,
            None,
            Port("past_key", dtype, 4),
            Port("past_value", dtype, 4),
            Port("lengths", INT32, 1),
            Port("total", INT32, 0),
            *sinks,
        ],
        [Port("output", dtype, 3), Port("key", dtype, 4), Port("value", dtype, 4)],
        domain="com.microsoft",
        attributes={
            "num_heads": HEADS,
            "kv_num_heads": HEADS,
            "scale": WIDTH**-0.5,
            "local_window_size": NEAR if kind.window else -1,
            "softcap": float(kind.softcap),
        },
    )
