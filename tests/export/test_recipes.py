"""Recipes: every tensor of every architecture finds a quantizer, and the one that is meant."""

import pytest

from sardonyx.export.cost_graph import cost
from sardonyx.export.recipes import RECIPES, Recipe
from sardonyx.models import architectures, describe
from sardonyx.runtime.errors import RequestError

UNIVERSAL = [recipe for recipe in RECIPES.values() if recipe.rules]


@pytest.mark.parametrize("recipe", UNIVERSAL, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("name", architectures())
def test_every_matrix_has_a_quantizer(name: str, recipe: object) -> None:
    weights = cost(describe(architectures()[name].EXAMPLE)).weights
    for weight in weights.values():
        assert str(RECIPES[recipe.name].quantizer(weight.name))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("recipe", "weight", "quantizer"),
    [
        ("fp32", "model.layers.0.mlp.up_proj.weight", "float32"),
        ("q8", "model.layers.0.mlp.up_proj.weight", "int8/32"),
        ("int8", "model.layers.0.mlp.up_proj.weight", "w8a8"),
        ("int8", "lm_head.weight", "int8/32"),
        ("int4", "model.embed_tokens.weight", "int8/32"),
        ("int4", "model.layers.11.self_attn.v_proj.weight", "int8/32"),
        ("int4", "model.layers.11.self_attn.q_proj.weight", "int8/32"),
        ("int4", "model.layers.11.self_attn.o_proj.weight", "int4/32"),
        ("int4", "model.layers.0.mlp.down_proj.weight", "int8/32"),
        ("int4", "model.layers.0.mlp.experts.3.down_proj.weight", "int4/32"),
        ("int4", "model.layers.0.mlp.gate.weight", "float32"),
        ("int4-small", "lm_head.weight", "int4/32"),
        ("int4-small", "model.layers.11.self_attn.k_proj.weight", "int8/32"),
        ("int4-small", "model.layers.0.mlp.down_proj.weight", "int4/32"),
    ],
)
def test_what_a_tensor_gets(recipe: str, weight: str, quantizer: str) -> None:
    assert str(RECIPES[recipe].quantizer(weight)) == quantizer


@pytest.mark.parametrize("recipe", UNIVERSAL, ids=lambda recipe: recipe.name)
def test_attention_reads_one_product(recipe: Recipe) -> None:
    """Weights that are stored alike are packed, and attention takes the packed tensor whole."""
    stored = {str(recipe.quantizer(f"model.layers.3.self_attn.{x}_proj.weight")) for x in "qkv"}
    assert len(stored) == 1


def test_only_four_bits_are_calibrated() -> None:
    calibrated = {name for name, recipe in RECIPES.items() if recipe.calibrated}
    assert calibrated == {"int4", "int4-small"}


def test_blocks_of_another_size() -> None:
    large = RECIPES["int4"].in_blocks(128)
    assert str(large.quantizer("model.layers.0.mlp.up_proj.weight")) == "int4/128"
    assert str(large.quantizer("model.embed_tokens.weight")) == "int8/128"
    assert str(large.quantizer("model.layers.0.mlp.gate.weight")) == "float32"
    assert large.limits == RECIPES["int4"].limits


@pytest.mark.parametrize(
    ("recipe", "size", "said"),
    [("int4", 48, "blocks of 48 are not known; known: 16, 32"), ("fp32", 64, "recipe fp32 has no blocks")],
)
def test_blocks_that_there_are_not(recipe: str, size: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        RECIPES[recipe].in_blocks(size)
