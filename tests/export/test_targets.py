"""Targets: other operators and another type, the same network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from random_models import UNMEASURED, ArrayCheckpoint, random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.export.targets import TARGETS
from sardonyx.models import architectures, describe
from sardonyx.runtime.errors import RequestError, SourceError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.loading import load_parts
from sardonyx.runtime.manifest import MODEL_NAME
from sardonyx.runtime.model import Model, Step

EXAMPLES = {name: module.EXAMPLE for name, module in architectures().items()}
PLAIN = [name for name in EXAMPLES if name != "lfm2"]
"""All that remember keys and values alone."""

EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")
TEXTS = np.random.default_rng(1).integers(1, 96, (2, 40)).tolist()


def exported(
    name: str, folder: Path, target: str, recipe: str = "fp32", **options: Any
) -> tuple[ArrayCheckpoint, Path]:
    checkpoint = random_checkpoint(EXAMPLES[name])
    export(checkpoint, folder, recipe=recipe, options=replace(UNMEASURED, target=target, **options))
    return checkpoint, folder


def logits(folder: Path) -> list[NDArray[np.float32]]:
    """Of two rows side by side: a piece each, a longer one and a shorter, then the rest token by token."""
    parts = load_parts(folder, 1)
    model = Model(parts.manifest, parts.program)
    rows = [model.arena.row() for _ in TEXTS]
    found: list[list[Any]] = [[], []]
    for first, last in (
        (0, (30, 9)),
        ((30, 9), (33, 20)),
        *(((33 + i, 20 + i), (34 + i, 21 + i)) for i in range(7)),
    ):
        starts = (first, first) if isinstance(first, int) else first
        steps = [
            Step(row, text[start:stop], wanted=stop - start)
            for row, text, start, stop in zip(rows, TEXTS, starts, last, strict=True)
        ]
        for kept, made in zip(found, model.forward(steps), strict=True):
            kept.append(made)
    return [np.concatenate(parts) for parts in found]


def expected(checkpoint: ArrayCheckpoint, counts: tuple[int, int] = (40, 27)) -> list[Any]:
    decoder = describe(checkpoint.config)
    return [
        NumpyGraph(decoder, checkpoint.fetch).run(text[:count])
        for text, count in zip(TEXTS, counts, strict=True)
    ]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_operators_say_the_same(name: str, tmp_path: Path) -> None:
    checkpoint, folder = exported(name, tmp_path / "portable", "portable")
    for found, right in zip(logits(folder), expected(checkpoint), strict=True):
        np.testing.assert_allclose(found, right, atol=2e-5)
    model = onnx.load(folder / MODEL_NAME, load_external_data=False)
    assert {node.domain for node in model.graph.node} - {""} == (
        {"com.microsoft"} if name in EXPERTS else set()
    )
    onnx.checker.check_model(folder / MODEL_NAME, full_check=name not in EXPERTS)


@pytest.mark.parametrize(
    ("target", "name"),
    [(t, n) for t in ("webgpu", "cuda") for n in ("gpt2", "gemma2", "qwen3", "phi3")] + [("webgpu", "lfm2")],
)
def test_halves_say_nearly_the_same(name: str, target: str, tmp_path: Path) -> None:
    """Computed in float16, on the CPU as well, logits put out as float32."""
    checkpoint, folder = exported(name, tmp_path / "half", target, "fp16")
    for found, right in zip(logits(folder), expected(checkpoint), strict=True):
        np.testing.assert_allclose(found, right, atol=0.03)
        assert np.abs(found - right).max() > 1e-5, "this was computed in float32"
    graph = onnx.load(folder / MODEL_NAME, load_external_data=False).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds["logits"] == onnx.TensorProto.FLOAT
    states = [kind for name, kind in kinds.items() if name.startswith(("past", "present"))]
    assert set(states) == {onnx.TensorProto.FLOAT16}
    assert {state.dtype for state in load_parts(folder, 1).manifest.states} == {"float16"}


def test_float16_weights_are_widened_on_the_cpu(tmp_path: Path) -> None:
    checkpoint, folder = exported("llama", tmp_path / "wide", "cpu", "fp16")
    _, whole = exported("llama", tmp_path / "whole", "cpu")
    for found, right in zip(logits(folder), expected(checkpoint), strict=True):
        np.testing.assert_allclose(found, right, atol=0.01)
    sizes = [(path / "model.onnx.data").stat().st_size for path in (folder, whole)]
    assert sizes[0] < 0.55 * sizes[1]


@pytest.mark.parametrize("recipe", ["q8", "int4", "int4-small"])
def test_rows_of_tables_in_plain_operators(recipe: str, tmp_path: Path) -> None:
    """What differs is the rounding of activations, whose last bits differ."""
    _, plain = exported("starcoder2", tmp_path / "plain", "portable", recipe)
    _, fused = exported("starcoder2", tmp_path / "fused", "cpu", recipe)
    for found, right in zip(logits(plain), logits(fused), strict=True):
        np.testing.assert_allclose(found, right, atol=0.1)
        assert np.median(np.abs(found - right)) < 1e-5


def test_decoding_is_that_of_the_cpu(tmp_path: Path) -> None:
    answers = [
        LLM.load(exported("llama", tmp_path / target, target)[1], threads=1).generate([5, 6, 7]).tokens
        for target in ("cpu", "portable")
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("target", "recipe", "options", "says"),
    [
        ("vulkan", "fp32", {}, "target 'vulkan' is not known; known: cpu, webgpu, cuda, portable"),
        (
            "webgpu",
            "int8",
            {},
            "target webgpu has no kernels for weights as w8a8; take recipe int4, q8 or fp16",
        ),
        (
            "cuda",
            "fp32",
            {},
            "target cuda has no kernels for weights as float32; take recipe int4, q8 or fp16",
        ),
        (
            "portable",
            "int8",
            {},
            "target portable has no kernels for weights as w8a8; take recipe int4, q8, fp",
        ),
        ("portable", "fp32", {"hidden_states": True}, "target portable cannot have hidden states"),
        ("cuda", "fp16", {"kv": "int8"}, "target cuda cannot have a cache of int8"),
        ("webgpu", "fp16", {"layout": "genai"}, "target webgpu cannot have the layout genai"),
    ],
)
def test_what_a_target_does_not_know_is_refused(
    target: str, recipe: str, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=says):
        exported("llama", tmp_path / "out", target, recipe, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["portable", "cuda"])
def test_convolutions_are_not_for_graphs_that_take_a_mask(target: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"target {target} holds keys and values, and no windows"):
        exported("lfm2", tmp_path / "out", target, "fp16")


@pytest.mark.parametrize("target", ["cpu", "webgpu"])
def test_weights_too_large_for_float16_are_named(target: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(EXAMPLES["llama"])
    checkpoint.arrays["model.norm.weight" if target == "webgpu" else "model.embed_tokens.weight"].flat[3] = (
        7e4
    )
    with pytest.raises(SourceError, match=r"70000.*too large for float16"):
        export(checkpoint, tmp_path / "out", recipe="fp16", options=replace(UNMEASURED, target=target))


def test_every_target_says_what_it_takes() -> None:
    assert {name: target.recipes for name, target in TARGETS.items()} == {
        "cpu": "any",
        "webgpu": "int4, q8 or fp16",
        "cuda": "int4, q8 or fp16",
        "portable": "int4, q8, fp32 or fp16",
    }


def test_the_options_have_the_target_of_the_cpu() -> None:
    assert Options().target == "cpu"
