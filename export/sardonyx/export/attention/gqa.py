"""Attention as com.microsoft GroupQueryAttention: rotary inside, keys and values written in place.

On CPU the kernel writes into the past buffer when past and present are the same memory, which is what makes a
shared cache possible. Lengths come in as `seqlens_k` (cached positions after this step, less one) and
`query_seqlens` (new tokens of each row); nothing is derived from a mask.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.models.config import ConfigError
from sardonyx.models.graph import AttentionSpec, Rotation, StateSpec

HEAD_WIDTH_MULTIPLE = {True: 16, False: 8}
"""The CPU kernel refuses other head widths, with and without rotary embedding."""

TABLE_POSITIONS = 1 << 14
"""Positions whose rotary angles are computed at a time: a context may have a million."""


def attend(g: OnnxBuilder, qkv: Sequence[ir.Value | None], spec: AttentionSpec) -> ir.Value:
    """Emit one attention layer and declare its two states. `qkv` is (packed, None, None) or three values."""
    multiple = HEAD_WIDTH_MULTIPLE[spec.rotation is not None]
    if spec.head_width % multiple:
        raise ConfigError(
            f"head_dim is {spec.head_width}; the attention kernel needs a multiple of {multiple}"
        )
    layer = len(g.states) // 2
    shape = (spec.kv_heads, spec.head_width)
    key, present_key = g.state(StateSpec(f"{layer}.key", "kv", shape), ir.DataType.FLOAT)
    value, present_value = g.state(StateSpec(f"{layer}.value", "kv", shape), ir.DataType.FLOAT)
    lengths = (
        g.input("seqlens_k", ir.DataType.INT32, ["rows"]),
        g.input("total_sequence_length", ir.DataType.INT32, []),
    )
    cos, sin = _tables(g, spec.rotation) if spec.rotation else (None, None)
    unused = (
        None,
    ) * 7  # position_ids, attention_bias, head_sink, k_scale, v_scale, q_norm_weight, k_norm_weight
    output, key_out, value_out = g.ops(
        "GroupQueryAttention",
        *qkv,
        key,
        value,
        *lengths,
        cos,
        sin,
        *unused,
        g.input("query_seqlens", ir.DataType.INT32, ["rows"]),
        count=3,
        domain=MICROSOFT,
        num_heads=spec.heads,
        kv_num_heads=spec.kv_heads,
        scale=float(spec.scale),
        do_rotary=int(spec.rotation is not None),
        local_window_size=spec.window or -1,
        softcap=spec.softcap or 0.0,
    )
    dims: list[int | str] = ["rows", spec.kv_heads, "capacity", spec.head_width]
    g.output(key_out, present_key, ir.DataType.FLOAT, dims)
    g.output(value_out, present_value, ir.DataType.FLOAT, dims)
    return output


def rotary_table(
    function: Callable[[Float32], Float32], rotation: Rotation, context: int
) -> Iterator[Float32]:
    """Cosine or sine of every position's angles, `[context, pairs]`, some positions at a time.

    Angles are products of float32 numbers, as the models were trained with, not the exact products.
    """
    frequencies = np.array(rotation.frequencies, np.float32)
    for start in range(0, context, TABLE_POSITIONS):
        positions = np.arange(start, min(start + TABLE_POSITIONS, context), dtype=np.float32)
        yield function(positions[:, None] * frequencies) * np.float32(rotation.magnitude)


def _tables(g: OnnxBuilder, rotation: Rotation) -> tuple[ir.Value, ir.Value]:
    def store() -> tuple[ir.Value, ir.Value]:
        name = f"rotary.{zlib.crc32(repr(rotation).encode()):08x}"
        shape = (g.context, len(rotation.frequencies))
        return (
            g.stored(
                f"{name}.cos", ir.DataType.FLOAT, shape, lambda: rotary_table(np.cos, rotation, g.context)
            ),
            g.stored(
                f"{name}.sin", ir.DataType.FLOAT, shape, lambda: rotary_table(np.sin, rotation, g.context)
            ),
        )

    return g.once(rotation, store)
