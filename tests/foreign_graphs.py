"""Tiny decoders as other programs write them, and what they should answer, in numpy.

Two layers of attention between an embedding with learned positions and a tied head: enough for a wrong mask,
position or state to show.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from random_models import letters_tokenizer

LAYERS, HEADS, WIDTH, VOCAB, CONTEXT = 2, 2, 8, 96, 64
HIDDEN = HEADS * WIDTH

Float32 = NDArray[np.float32]

POSITIONS = {
    "given": "place = Identity(position_ids)",
    "counted": """
        counted = CumSum(mask, one)
        last = Sub(counted, ones)
        floor = Max(last, nought)
        place = Slice(floor, past, total, ones)""",
    "by_shape": """
        range = Range(past_size, total_size, one)
        place = Unsqueeze(range, noughts)""",
}
"""How a graph knows where its tokens stand."""

CONCATENATED = """
    q4L = Reshape(qL, split)  k4L = Reshape(kL, split)  v4L = Reshape(vL, split)
    qtL = Transpose<perm=[0,2,1,3]>(q4L)  ktL = Transpose<perm=[0,2,1,3]>(k4L)
    vtL = Transpose<perm=[0,2,1,3]>(v4L)
    kcL = CastLike(ktL, past_L_key)  vcL = CastLike(vtL, past_L_value)
    present_L_key = Concat<axis=2>(past_L_key, kcL)
    present_L_value = Concat<axis=2>(past_L_value, vcL)
    wholeL = CastLike(present_L_key, qtL)
    turnedL = Transpose<perm=[0,1,3,2]>(wholeL)
    rawL = MatMul(qtL, turnedL)
    scaledL = Mul(rawL, scale)
    maskedL = Where(allowed, scaledL, lowest)
    shareL = Softmax<axis=-1>(maskedL)
    valuesL = CastLike(present_L_value, shareL)
    mixedL = MatMul(shareL, valuesL)
    untiltL = Transpose<perm=[0,2,1,3]>(mixedL)
    attendedL = Reshape(untiltL, joined)
"""
MASKED = """
    rows_at = Range(past_size, total_size, one)
    columns_at = Range(nought_size, total_size, one)
    row_at = Unsqueeze(rows_at, ones)
    causal = LessOrEqual(columns_at, row_at)
    seen = Cast<to=9>(attention_mask)
    seen4 = Unsqueeze(seen, middle)
    allowed = And(causal, seen4)
"""
IN_PLACE = """
    attendedL, present_L_key, present_L_value = com.microsoft.GroupQueryAttention
        <num_heads=2, kv_num_heads=2>(qL, kL, vL, past_L_key, past_L_value, seqlens, total32)
"""
LENGTHS = """
    sums = ReduceSum<keepdims=0>(mask, ones)
    less = Sub(sums, ones)
    seqlens = Cast<to=6>(less)
    total32 = Cast<to=6>(total_size)
"""


@dataclass(frozen=True)
class Graph:
    """What a graph is like. `kept`: it takes num_logits_to_keep; `last_only`: it has logits of the last
    token."""

    positions: Literal["given", "counted", "by_shape"] = "given"
    in_place: bool = False
    kept: bool = False
    last_only: bool = False
    half: bool = False
    integers: str = "int64"

    def write(self, path: Path, *, external: bool = False) -> Path:
        """Save the graph, with its weights in `<name>_data` if they are to be external."""
        model = self._model()
        onnx.checker.check_model(model)
        onnx.save(
            model, path, save_as_external_data=external, location=f"{path.name}_data", size_threshold=512
        )
        return path

    def _model(self) -> onnx.ModelProto:
        state, kind = "float16" if self.half else "float", self.integers
        size = "past" if not self.in_place else "capacity"
        names = [f"{layer}_{part}" for layer in range(LAYERS) for part in ("key", "value")]
        inputs = [f"{kind}[rows, tokens] input_ids", f"{kind}[rows, total] attention_mask"]
        inputs += [f"{kind}[rows, tokens] position_ids"] * (self.positions == "given")
        inputs += ["int64 num_logits_to_keep"] * self.kept
        inputs += [f"{state}[rows, {HEADS}, {size}, {WIDTH}] past_{name}" for name in names]
        outputs = [f"float[rows, {'1' if self.last_only else 'some'}, {VOCAB}] logits"]
        outputs += [f"{state}[rows, {HEADS}, after, {WIDTH}] present_{name}" for name in names]
        text = (
            '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1], producer_name: "somebody">\n'
            f"decoder ({', '.join(inputs)}) => ({', '.join(outputs)}) {{ {self._body()} }}"
        )
        model = onnx.parser.parse_model(text)
        for name, array in self._arrays().items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return _renamed(model, names)

    def _body(self) -> str:
        attention = IN_PLACE if self.in_place else CONCATENATED
        layers = [
            f"""qL = MatMul(xL, wqL)  kL = MatMul(xL, wkL)  vL = MatMul(xL, wvL)
            {attention}
            outL = MatMul(attendedL, woL)
            xN = Add(xL, outL)"""
            for _ in range(LAYERS)
        ]
        cut = (
            "final = Slice(xE, starts, ends, ones)" if self.kept or self.last_only else "final = Identity(xE)"
        )
        numbered = "".join(
            text.replace("xN", f"x{i + 1}").replace("_L_", f"_{i}_").replace("L ", f"{i} ")
            .replace("L,", f"{i},").replace("L)", f"{i})")
            for i, text in enumerate(layers)
        )  # fmt: skip
        return f"""
            mask = Cast<to=7>(attention_mask)
            total = Shape<start=1, end=2>(attention_mask)
            tokens = Shape<start=1, end=2>(input_ids)
            past = Sub(total, tokens)
            total_size = Squeeze(total)  past_size = Squeeze(past)
            {POSITIONS[self.positions]}
            {LENGTHS if self.in_place else MASKED}
            embedded = Gather(table, input_ids)
            placed = Gather(places, place)
            x0 = Add(embedded, placed)
            {numbered}
            {"keep = Neg(num_logits_to_keep) starts = Unsqueeze(keep, noughts)" if self.kept else ""}
            {"starts = Identity(minus)" if self.last_only else ""}
            {cut.replace("xE", f"x{LAYERS}")}
            logits = MatMul(final, head)
        """

    def _arrays(self) -> dict[str, Any]:
        one = np.array([1])
        return {
            **weights(),
            "one": one[0],
            "ones": one,
            "noughts": 0 * one,
            "minus": -one,
            "ends": one * 2**31,
            "nought_size": np.int64(0),
            "nought": np.int64(0),
            "middle": np.array([1, 2]),
            "split": np.array([0, 0, HEADS, WIDTH]),
            "joined": np.array([0, 0, HIDDEN]),
            "scale": np.float32(WIDTH**-0.5),
            "lowest": np.float32(-1e9),
        }


def write_merged(graph: Graph, path: Path) -> Path:
    """Two in one, as optimum once wrote them: the branch for beginnings reads no past, and the other is right
    for one token alone.
    """
    whole = graph._model()
    beginning, following = (graph._model() for _ in range(2))
    for node in beginning.graph.node:
        if node.op_type == "Concat" and node.input[0].startswith("past_"):
            node.op_type, node.input[:] = "Identity", [node.input[1]]
            del node.attribute[:]
    for node in following.graph.node:
        if list(node.output) == ["allowed"]:
            node.op_type, node.input[:] = "Identity", ["seen4"]
    branches = [_branch(model) for model in (following, beginning)]
    parts = {"then_branch": branches[0], "else_branch": branches[1]}
    names = [output.name for output in whole.graph.output]
    asked = onnx.helper.make_tensor_value_info("use_cache_branch", onnx.TensorProto.BOOL, [1])
    merged = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Squeeze", [asked.name], ["condition"]),
            onnx.helper.make_node("If", ["condition"], names, **parts),
        ],
        "merged",
        [*whole.graph.input, asked],
        whole.graph.output,
        whole.graph.initializer,
    )
    model = onnx.helper.make_model(
        merged, opset_imports=whole.opset_import, ir_version=10, producer_name="somebody"
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _branch(model: onnx.ModelProto) -> onnx.GraphProto:
    """Its nodes alone, under names that are not those outside."""
    made = {name: f"{name}_inside" for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        node.input[:] = [made.get(name, name) for name in node.input]
        node.output[:] = [made[name] for name in node.output]
    outputs = [onnx.ValueInfoProto() for _ in model.graph.output]
    for output, port in zip(outputs, model.graph.output, strict=True):
        output.CopyFrom(port)
        output.name = made[port.name]
    return onnx.helper.make_graph(model.graph.node, "branch", [], outputs)


def _renamed(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """With the names of states that the parser cannot spell, and without what is not used."""
    renames = {f"past_{name}": f"past_key_values.{name.replace('_', '.')}" for name in names}
    renames |= {f"present_{name}": f"present.{name.replace('_', '.')}" for name in names}
    for port in (*model.graph.input, *model.graph.output):
        port.name = renames.get(port.name, port.name)
    for node in model.graph.node:
        node.input[:] = [renames.get(name, name) for name in node.input]
        node.output[:] = [renames.get(name, name) for name in node.output]
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def weights() -> dict[str, Float32]:
    rng = np.random.default_rng(7)

    def random(*shape: int) -> Float32:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    table = rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
    parts = {f"w{part}{layer}": random(HIDDEN, HIDDEN) for layer in range(LAYERS) for part in "qkvo"}
    places = rng.standard_normal((CONTEXT, HIDDEN)).astype(np.float32)
    return {"table": table, "head": np.ascontiguousarray(table.T), "places": places, **parts}


def reference(tokens: Sequence[int], graph: Graph) -> Float32:
    """Logits `[tokens, vocab]` of a whole text."""
    w = weights()
    x = w["table"][list(tokens)] + w["places"][: len(tokens)]
    hidden = np.triu(np.full((len(tokens), len(tokens)), -np.inf, np.float32), 1)
    for layer in range(LAYERS):
        q, k, v = ((x @ w[f"w{part}{layer}"]).reshape(-1, HEADS, WIDTH).transpose(1, 0, 2) for part in "qkv")
        if graph.half:
            k, v = (kept.astype(np.float16).astype(np.float32) for kept in (k, v))
        scores = q @ k.transpose(0, 2, 1) * np.float32(WIDTH**-0.5) + hidden
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        x = x + (share @ v).transpose(1, 0, 2).reshape(-1, HIDDEN) @ w[f"wo{layer}"]
    return x @ w["head"]


def write_settings(folder: Path) -> Path:
    """The files of a Hugging Face model beside its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["TinyForCausalLM"], "vocab_size": VOCAB, "max_position_embeddings": CONTEXT}
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 0}))
    (folder / "tokenizer.json").write_bytes(letters_tokenizer(VOCAB))
    return folder
