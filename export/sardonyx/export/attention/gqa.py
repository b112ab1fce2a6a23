"""Attention as com.microsoft GroupQueryAttention: rotary inside, keys and values written in place.

On CPU the kernel writes into the past buffer when past and present are the same memory, which is what makes a
shared cache possible. Lengths come in as `seqlens_k` (cached positions after this step, less one) and
`query_seqlens` (new tokens of each row); nothing is derived from a mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from sardonyx.export.attention.fit import Fit, fitted
from sardonyx.export.attention.int8 import Cached, Tables, places_of, rotated
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.export.ports import attention_mask
from sardonyx.models.graph import AttentionSpec, Rotation, StateSpec

INT8_CACHE = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
"""Keys and values rounded to whole multiples of a scale for each channel of each head."""

NO_SINK = -1e30
"""A sink that takes nothing: e to this power is 0."""


@dataclass(frozen=True)
class Told:
    """How the kernel is told lengths: cached positions of each row after this step, less one; of the longest;
    and new tokens of each row, where they are not those of the pass.
    """

    cached: ir.Value
    longest: ir.Value
    new: ir.Value | None = None


def by_lengths(g: OnnxBuilder) -> Told:
    """As inputs of the graph."""
    return Told(
        g.input("seqlens_k", ir.DataType.INT32, ["rows"]),
        g.input("total_sequence_length", ir.DataType.INT32, []),
        g.input("query_seqlens", ir.DataType.INT32, ["rows"]),
    )


def by_mask(g: OnnxBuilder) -> Told:
    """Counted from an attention mask, for kernels that take no number of new tokens."""

    def make() -> Told:
        mask = attention_mask(g)
        count = g.op("ReduceSum", mask, g.constant(np.array([1], np.int64)), keepdims=0)
        last = g.op("Sub", count, g.constant(np.array(1, np.int64)))
        longest = g.op("Squeeze", g.op("Shape", mask, start=1, end=2))
        return Told(*(g.op("Cast", value, to=ir.DataType.INT32) for value in (last, longest)))

    return g.once("lengths by mask", make)


@dataclass(frozen=True)
class _Asked:
    """What all nodes of a layer are given."""

    spec: AttentionSpec
    sinks: ir.Value | None
    told: Told


def attend(
    g: OnnxBuilder,
    qkv: Sequence[ir.Value | None],
    spec: AttentionSpec,
    sinks: ir.Value | None,
    tell: Callable[[OnnxBuilder], Told] = by_lengths,
) -> ir.Value:
    """Emit one attention layer and declare its two states. `qkv` is (packed, None, None) or three values."""
    rotation = spec.rotation.at(g.context) if spec.rotation else None
    fit = fitted(spec.head_width, rotation)
    tables = _tables(g, rotation, fit) if rotation else Tables()
    if fit.exact:
        return _kernel(g, (*qkv, sinks), tables, spec, fit.kernel_width, tell)
    query, key, value = _unpacked(g, qkv, spec)
    fitting = (fit.turned(g, query), fit.turned(g, key), fit.padded(g, value), sinks)
    return fit.cut(g, _kernel(g, fitting, tables, spec, fit.kernel_width, tell))


def _kernel(
    g: OnnxBuilder,
    inputs: Sequence[ir.Value | None],
    tables: Tables,
    spec: AttentionSpec,
    width: int,
    tell: Callable[[OnnxBuilder], Told],
) -> ir.Value:
    """The node itself, for heads of a width that it takes; `inputs` are queries, keys, values and sinks."""
    *qkv, sinks = inputs
    layer = sum(known.kind == "kv" for known, _, _ in g.states) // 2
    shape = (spec.kv_heads, width)
    scales = (g.state_scale(f"{layer}.key"), g.state_scale(f"{layer}.value"))
    dtype = g.float if scales[0] is None else ir.DataType.INT8
    key, present_key = g.state(StateSpec(f"{layer}.key", "kv", shape), dtype)
    value, present_value = g.state(StateSpec(f"{layer}.value", "kv", shape), dtype)
    asked = _Asked(spec, sinks, tell(g))
    if scales[0] is None or scales[1] is None:
        made = _node(g, (*qkv, key, value), tables, asked)
    else:
        made = _of_int8(g, qkv, (Cached(key, scales[0]), Cached(value, scales[1])), tables, asked)
    output, key_out, value_out = made
    dims: list[int | str] = ["rows", spec.kv_heads, "capacity", width]
    g.output(key_out, present_key, dtype, dims)
    g.output(value_out, present_value, dtype, dims)
    return output


def _node(
    g: OnnxBuilder,
    inputs: Sequence[ir.Value | None],
    tables: Tables,
    asked: _Asked,
    scales: Sequence[ir.Value | None] = (None, None),
) -> Sequence[ir.Value]:
    """`inputs` are queries, keys and values of new tokens, and keys and values that are cached."""
    biases = (None, None)  # position_ids, attention_bias
    norms = (None, None)  # q_norm_weight, k_norm_weight
    return g.ops(
        "GroupQueryAttention",
        *inputs,
        asked.told.cached,
        asked.told.longest,
        tables.cosines,
        tables.sines,
        *biases,
        asked.sinks,
        *scales,
        *norms,
        asked.told.new,
        count=3,
        domain=MICROSOFT,
        num_heads=asked.spec.heads,
        kv_num_heads=asked.spec.kv_heads,
        scale=float(asked.spec.scale),
        do_rotary=int(tables.cosines is not None),
        local_window_size=asked.spec.window or -1,
        softcap=asked.spec.softcap or 0.0,
        **({} if scales[0] is None else INT8_CACHE),
    )


def _of_int8(
    g: OnnxBuilder,
    qkv: Sequence[ir.Value | None],
    cached: Sequence[Cached],
    tables: Tables,
    asked: _Asked,
) -> Sequence[ir.Value]:
    """One token by the kernel for such a cache; several by the one for float32, which is faster at these."""
    spec, single = asked.spec, places_of(g).single

    def one() -> Sequence[ir.Value]:
        """With sinks the kernel takes scores at once, not block by block: a fifth faster for one token."""
        pasts, steps = [each.past for each in cached], [each.step for each in cached]
        sinks = asked.sinks or g.constant(np.full(spec.heads, NO_SINK, np.float32))
        return _node(g, (*qkv, *pasts), tables, replace(asked, sinks=sinks), steps)

    def several() -> Sequence[ir.Value]:
        query, key, value = _unpacked(g, qkv, spec)
        new = (rotated(g, key, tables, spec.kv_heads), value)
        keys, values = (each.rounded(g, made) for each, made in zip(cached, new, strict=True))
        of_keys, of_values = (each.worth(g, spec.heads // spec.kv_heads) for each in cached)
        query = g.op("Mul", rotated(g, query, tables, spec.heads), of_keys)
        pasts = [each.in_steps(g) for each in cached]
        output, _, _ = _node(g, (query, keys[0], values[0], *pasts), Tables(), asked)
        return g.op("Mul", output, of_values), keys[1], values[1]

    return g.choose(single, one, several, [ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.INT8])


def _unpacked(
    g: OnnxBuilder, qkv: Sequence[ir.Value | None], spec: AttentionSpec
) -> tuple[ir.Value, ir.Value, ir.Value]:
    query, key, value = qkv
    assert query is not None
    if key is not None and value is not None:
        return query, key, value
    widths = [heads * spec.head_width for heads in (spec.heads, spec.kv_heads, spec.kv_heads)]
    query, key, value = g.ops("Split", query, g.constant(np.array(widths, np.int64)), count=3, axis=-1)
    return query, key, value


def _tables(g: OnnxBuilder, rotation: Rotation, fit: Fit) -> Tables:
    """Cosine and sine of every position's angles, for all layers with this rotation; those of pairs that rest
    are of angle zero.

    Nodes that read nothing but frequencies make them, and onnxruntime folds these while it loads: a table for
    a context of 131,072 would be 67 MB of the file. Angles are products of float32 numbers, as the models
    were trained with, not the exact products. Their functions are taken in float64, of which onnxruntime
    makes float32 within one last bit; where halves are made of them, in float32.
    """
    wide = ir.DataType.DOUBLE if g.float == ir.DataType.FLOAT else ir.DataType.FLOAT
    frequencies = np.array(rotation.frequencies + (0.0,) * fit.still, np.float32)
    magnitudes = np.array([rotation.magnitude] * len(rotation.frequencies) + [1.0] * fit.still, wide.numpy())

    turned = 2 * len(frequencies)

    def make() -> Tables:
        ends = (g.constant(np.array(number, np.int64)) for number in (0, g.context, 1))
        positions = g.op("Cast", g.op("Range", *ends), to=ir.DataType.FLOAT)
        column = g.reshaped(positions, -1, 1)
        angles = g.op("Cast", g.op("Mul", column, g.constant(frequencies)), to=wide)
        cosines, sines = (g.op(kind, angles) for kind in ("Cos", "Sin"))
        scaled = (g.op("Mul", table, g.constant(magnitudes)) for table in (cosines, sines))
        cosines, sines = (g.op("Cast", table, to=g.float) for table in scaled)
        return Tables(cosines, sines, turned if turned < fit.kernel_width else 0)

    return g.once(("rotary", frequencies.tobytes(), magnitudes.tobytes()), make)
