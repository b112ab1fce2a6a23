"""Adapters kept beside the weights: each row of a batch has its own, and gets what it would get alone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapter_files import PREFIX, low_rank, merged, save_adapter
from random_models import UNMEASURED, ArrayCheckpoint, random_checkpoint
from sardonyx.export.api import export
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.export.recipes import RECIPES
from sardonyx.models import architectures, describe
from sardonyx.models.graph import Weight
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.errors import RequestError, SourceError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.model import Model, Step
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies.beam import BeamSearch

TOKENS = np.random.default_rng(0).integers(1, 99, (3, 40)).tolist()
GREEDY = SamplingParams(max_tokens=8, temperature=0)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MODULES: Mapping[str, tuple[list[str], list[str]]] = {
    "llama": (
        [f"model.layers.{i}.self_attn.{name}" for i in (0, 1) for name in ATTENTION],
        ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.up_proj", "model.layers.1.self_attn.k_proj"],
    ),
    "lfm2": (["model.layers.0.conv.out_proj"], ["model.layers.1.self_attn.v_proj"]),
    "qwen3_moe": (
        ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate"],
        ["model.layers.1.mlp.up_proj"],
    ),
}
CASES = [("llama", "fp32"), ("llama", "int4"), ("llama", "int8"), ("lfm2", "fp32"), ("qwen3_moe", "fp32")]


class Switched:
    """A model with two adapters of other ranks and other layers, `one` and `two`."""

    def __init__(self, folder: Path, name: str = "llama", recipe: str = "fp32") -> None:
        self.base = random_checkpoint(architectures()[name].EXAMPLE)
        first, second = MODULES[name]
        self.arrays = [low_rank(self.base, first, rank=3), low_rank(self.base, second, rank=5, seed=1)]
        paths = (
            save_adapter(folder / "one", self.arrays[0], r=3, lora_alpha=6),
            save_adapter(folder / "two", self.arrays[1], r=5, lora_alpha=10),
        )
        self.folder = folder / "artifact"
        options = replace(UNMEASURED, adapters=paths)
        self.manifest = export(self.base, self.folder, recipe=recipe, options=options)
        self.recipe = recipe

    def model(self) -> Model:
        return Model(self.manifest, OrtProgram(self.folder, self.manifest, threads=1))

    def expected(self, adapter: int, tokens: list[int]) -> Any:
        """numpy's logits of what the recipe leaves of the model, with the adapter in full."""

        def left(array: Any, name: str) -> Any:
            return RECIPES[self.recipe].quantizer(name).dequantized(array) if array.ndim == 2 else array

        stored = ArrayCheckpoint(self.base.config, {n: left(a, n) for n, a in self.base.arrays.items()})
        whole = merged(stored, self.arrays[adapter - 1]) if adapter else stored

        def fetch(weight: Weight) -> Any:
            return whole.arrays[weight.name]

        return NumpyGraph(describe(self.base.config), fetch).run(tokens)


@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_each_row_has_its_own_adapter(name: str, recipe: str, tmp_path: Path) -> None:
    """Prompts, single tokens and short runs; a fork has its parent's. Quantizers round activations."""
    switched = Switched(tmp_path, name, recipe)
    model = switched.model()
    rows = [model.arena.row(adapter) for adapter in (2, 0, 1)]
    fork = None
    found: list[list[Any]] = [[], [], []]
    for start, stop in ((0, 20), (20, 21), (21, 22), (22, 27), (27, 40)):
        steps = [Step(row, TOKENS[i][start:stop], stop - start) for i, row in enumerate(rows)]
        for i, logits in enumerate(model.forward(steps)):
            found[i].append(logits)
        if start == 20:
            fork = model.arena.fork(rows[0], 21)
    expected = [switched.expected(adapter, TOKENS[i]) for i, adapter in enumerate((2, 0, 1))]
    spread = np.std(expected)
    for one, other in zip(found, expected, strict=True):
        error = np.concatenate(one) - other
        assert np.abs(error).max() < 3e-5 if recipe == "fp32" else np.sqrt((error**2).mean()) < 0.06 * spread
    assert np.abs(switched.expected(0, TOKENS[0]) - expected[0]).max() > 0.3 * spread
    assert fork is not None
    (logits,) = model.forward([Step(fork, TOKENS[0][21:22])])
    np.testing.assert_allclose(logits, found[0][2], rtol=0, atol=3e-5)


@pytest.mark.parametrize("recipe", ["fp32", "int4", "int8"])
def test_company_with_other_adapters_changes_no_bit(recipe: str, tmp_path: Path) -> None:
    model = Switched(tmp_path, recipe=recipe).model()

    def steps(adapters: list[int]) -> list[list[Any]]:
        rows = [model.arena.row(adapter) for adapter in adapters]
        model.forward(
            [Step(row, TOKENS[adapter][:20], 0) for row, adapter in zip(rows, adapters, strict=True)]
        )
        logits = [
            model.forward([Step(row, TOKENS[a][at : at + 1]) for row, a in zip(rows, adapters, strict=True)])
            for at in range(20, 30)
        ]
        for row in rows:
            model.arena.release(row)
        return logits

    together = steps([1, 0, 2])
    for place, adapter in enumerate((1, 0, 2)):
        for at, (alone,) in enumerate(steps([adapter])):
            np.testing.assert_array_equal(together[at][place], alone)


def test_none_is_the_model_as_it_is_without_adapters_to_the_bit(tmp_path: Path) -> None:
    switched = Switched(tmp_path, recipe="int4")
    plain = export(switched.base, tmp_path / "plain", recipe="int4", options=UNMEASURED)
    models = (switched.model(), Model(plain, OrtProgram(tmp_path / "plain", plain, threads=1)))
    found = [model.forward([Step(model.arena.row(), TOKENS[0], 40)])[0] for model in models]
    np.testing.assert_array_equal(*found)
    assert (switched.manifest.adapter_names, plain.adapter_names) == (["one", "two"], [])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switched")
    return Switched(folder).folder


def test_requests_with_different_adapters_share_batches_and_get_what_each_gets_alone(artifact: Path) -> None:
    prompts = {None: TOKENS[0][:12], "one": TOKENS[1][:9], "two": TOKENS[0][:12]}
    alone = {name: LLM.load(artifact).generate(text, GREEDY, adapter=name) for name, text in prompts.items()}
    llm = LLM.load(artifact)
    streams = {name: llm.adapted(name).stream(text, GREEDY) for name, text in prompts.items()}
    for stream in streams.values():
        stream.wait()
    for name, stream in streams.items():
        assert stream.completion.tokens == alone[name].tokens
    assert len({tuple(one.tokens) for one in alone.values()}) == 3


def test_what_was_computed_with_one_adapter_is_not_taken_for_another(artifact: Path) -> None:
    """The prefix cache keeps them apart."""
    prompt = TOKENS[2] + TOKENS[1]
    llm = LLM.load(artifact)
    for name in ("one", None, "two", "one", None):
        fresh = LLM.load(artifact).generate(prompt, GREEDY, adapter=name)
        assert llm.generate(prompt, GREEDY, adapter=name).tokens == fresh.tokens
        assert llm.adapted(name).score(prompt, ["a", "bc"]) == LLM.load(artifact).adapted(name).score(
            prompt, ["a", "bc"]
        )


def test_searches_have_an_adapter_too(artifact: Path) -> None:
    llm = LLM.load(artifact)
    found = {
        name: llm.generate(TOKENS[0][:9], GREEDY, BeamSearch(num_beams=3), adapter=name).tokens
        for name in (None, "one", "two")
    }
    assert len({tuple(ids) for ids in found.values()}) == 3


def test_an_adapter_that_is_not_there_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="random has no adapter 'three'; known: one, two"):
        LLM.load(artifact).generate("abc", adapter="three")
    export(random_checkpoint(architectures()["llama"].EXAMPLE), tmp_path / "a", options=UNMEASURED)
    with pytest.raises(RequestError, match="no adapter 'one'; it was exported without --adapters"):
        LLM.load(tmp_path / "a").adapted("one")


@pytest.mark.parametrize(
    ("tensor", "shape", "words"),
    [
        (f"{PREFIX}lm_head.weight", (99, 48), "more than a low-rank sum at lm_head.weight"),
        (
            f"{PREFIX}model.layers.0.self_attn.q_proj.lora_magnitude_vector",
            (96,),
            "more than a low-rank sum at model.layers.0.self_attn.q_proj.weight",
        ),
    ],
)
def test_what_is_more_than_a_sum_can_only_be_merged(
    tensor: str, shape: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    base = random_checkpoint({**architectures()["llama"].EXAMPLE, "tie_word_embeddings": False})
    arrays = {**low_rank(base, ["model.layers.0.self_attn.q_proj"]), tensor: np.ones(shape, np.float32)}
    options = replace(UNMEASURED, adapters=(save_adapter(tmp_path / "polite", arrays),))
    with pytest.raises(SourceError, match=f"adapter polite is {words}, .* merge it with --adapter"):
        export(base, tmp_path / "out", options=options)


@pytest.mark.parametrize(
    ("name", "module"), [("llama", "lm_head"), ("qwen3_moe", "model.layers.0.mlp.experts.1.up_proj")]
)
def test_layers_without_a_branch_can_only_be_merged(name: str, module: str, tmp_path: Path) -> None:
    base = random_checkpoint({**architectures()[name].EXAMPLE, "tie_word_embeddings": False})
    adapter = save_adapter(tmp_path / "polite", low_rank(base, [module]))
    words = rf"adapter polite changes {module}.weight, which cannot be switched; merge it with --adapter"
    with pytest.raises(SourceError, match=words):
        export(base, tmp_path / "out", options=replace(UNMEASURED, adapters=(adapter,)))
    assert not (tmp_path / "out").exists()


def test_two_adapters_of_one_name_are_refused(tmp_path: Path) -> None:
    base = random_checkpoint(architectures()["llama"].EXAMPLE)
    paths = [save_adapter(tmp_path / at / "polite", low_rank(base, [MODULES["llama"][0][0]])) for at in "ab"]
    with pytest.raises(RequestError, match="two adapters are called 'polite': rename a folder"):
        export(base, tmp_path / "out", options=replace(UNMEASURED, adapters=paths))
