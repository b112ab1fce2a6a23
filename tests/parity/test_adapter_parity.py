"""L4 for adapters: logits equal those of peft, merged and switched, whatever an adapter may consist of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_models import letters_tokenizer, random_weight
from sardonyx.export.adapters.merged import MergedCheckpoint
from sardonyx.export.adapters.peft import read_adapter
from sardonyx.export.api import Options, export
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.models import architectures, describe
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.model import Model, Step

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-4
TOKENS = np.random.default_rng(2).integers(0, 99, 40).tolist()
ALL = "all-linear"
UNTIED, TIED = {"tie_word_embeddings": False}, {"tie_word_embeddings": True}

CASES: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "attention": ("llama", {}, {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 24}),
    "all linear, rslora": ("qwen3", {}, {"target_modules": ALL, "use_rslora": True}),
    "ranks and alphas by pattern": (
        "qwen2",
        {},
        {
            "target_modules": ALL,
            "rank_pattern": {"q_proj": 2, r"layers\.1\..*down_proj": 7},
            "alpha_pattern": {"v_proj": 3, "mlp.up_proj": 40},
        },
    ),
    "some layers": ("llama", {}, {"target_modules": ["down_proj"], "layers_to_transform": [1]}),
    "dora": ("llama", {}, {"target_modules": ["q_proj", "o_proj", "up_proj"], "use_dora": True}),
    "head and table": ("llama", UNTIED, {"target_modules": ["lm_head", "embed_tokens", "k_proj"]}),
    "head of a tied model": ("llama", TIED, {"target_modules": ["lm_head", "k_proj"]}),
    "table of a tied model": ("llama", TIED, {"target_modules": ["embed_tokens", "k_proj"]}),
    "saved whole": (
        "qwen3",
        UNTIED,
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "q_norm"]},
    ),
    "biases": ("qwen2", {}, {"target_modules": ["q_proj", "k_proj"], "bias": "all"}),
    "norms stored less one": ("gemma2", {}, {"target_modules": ALL, "modules_to_save": ["input_layernorm"]}),
    "fused weights": ("phi3", {}, {"target_modules": ALL}),
    "fused by heads": ("gpt_neox", {}, {"target_modules": ALL}),
    "fused, dora": ("phi3", {}, {"target_modules": ["qkv_proj", "gate_up_proj"], "use_dora": True}),
    "matrices the other way round": ("gpt2", {}, {"target_modules": ["c_attn", "c_fc", "c_proj"]}),
    "the other way round, dora": ("gpt2", {}, {"target_modules": ["c_attn", "c_fc"], "use_dora": True}),
    "interleaved rows": ("cohere", {}, {"target_modules": ["q_proj", "k_proj"]}),
    "experts": ("qwen3_moe", {}, {"target_modules": ["gate_proj", "down_proj", "gate"]}),
    "convolutions": ("lfm2", {}, {"target_modules": ["in_proj", "out_proj", "w2"]}),
}


def saved(folder: Path, name: str, changes: Mapping[str, Any], *adapters: Mapping[str, Any]) -> list[Any]:
    """Save a random model and random adapters of it, `adapter-0` and so on; returns each one's logits."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {**architectures()[name].EXAMPLE, **changes}
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**config), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter_name, parameter in base.named_parameters():
            parameter.copy_(torch.from_numpy(random_weight(parameter_name, tuple(parameter.shape), rng)))
    base.save_pretrained(folder / "base")
    (folder / "base" / "tokenizer.json").write_bytes(letters_tokenizer(config["vocab_size"]))
    logits = []
    for index, adapter in enumerate(adapters):
        model = AutoModelForCausalLM.from_pretrained(folder / "base", attn_implementation="eager")
        adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, **adapter})).eval()
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    noise = 0.2 * rng.standard_normal(tuple(parameter.shape))
                    scaled = parameter * torch.from_numpy(1 + noise / 3) + torch.from_numpy(noise)
                    parameter.copy_(scaled.to(torch.float32))
            logits.append(adapted(torch.tensor([TOKENS])).logits[0].numpy())
        adapted.save_pretrained(folder / f"adapter-{index}")
    return logits


@pytest.mark.parametrize("case", CASES)
def test_l4_a_merged_adapter_gives_the_logits_of_peft(case: str, tmp_path: Path) -> None:
    (expected,) = saved(tmp_path, *CASES[case])
    base = open_checkpoint(tmp_path / "base")
    merged = MergedCheckpoint(base, read_adapter(tmp_path / "adapter-0", base))
    graph = NumpyGraph(describe(merged.config), lambda w: merged.tensor(w.name).rows(0, w.shape[0]))
    np.testing.assert_allclose(graph.run(TOKENS), expected, rtol=0, atol=TOLERANCE)
    plain = NumpyGraph(describe(base.config), lambda w: base.tensor(w.name).rows(0, w.shape[0]))
    assert np.abs(plain.run(TOKENS) - expected).max() > 100 * TOLERANCE


SWITCHED = (
    "attention",
    "all linear, rslora",
    "fused weights",
    "fused by heads",
    "interleaved rows",
    "convolutions",
    "matrices the other way round",
    "ranks and alphas by pattern",
)


@pytest.mark.parametrize("case", SWITCHED)
def test_l4_switched_adapters_give_the_logits_of_peft(case: str, tmp_path: Path) -> None:
    """Two of them and none, side by side, however they are fed."""
    name, changes, adapter = CASES[case]
    other = {**adapter, "r": 7, "rank_pattern": {}, "lora_alpha": 9}
    first, second = saved(tmp_path, name, changes, adapter, other)
    base = open_checkpoint(tmp_path / "base")
    plain = NumpyGraph(describe(base.config), lambda w: base.tensor(w.name).rows(0, w.shape[0])).run(TOKENS)
    options = Options(verify=False, adapters=(tmp_path / "adapter-0", tmp_path / "adapter-1"))
    manifest = export(tmp_path / "base", tmp_path / "out", recipe="fp32", options=options)
    model = Model(manifest, OrtProgram(tmp_path / "out", manifest, threads=1))
    rows = [model.arena.row(number) for number in (2, 0, 1)]
    for start, stop in ((0, 20), (20, 21), (21, 26), (26, 40)):
        steps = [Step(row, TOKENS[start:stop], stop - start) for row in rows]
        for logits, expected in zip(model.forward(steps), (second, plain, first), strict=True):
            np.testing.assert_allclose(logits, expected[start:stop], rtol=0, atol=TOLERANCE)
