"""L5: the real model answers with the tokens of transformers, loaded from the same file.

Quantized it does so nearly always: how nearly is printed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_models import UNMEASURED
from sardonyx.export.api import export
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.llm import LLM, Prompt
from sardonyx.runtime.manifest import read_manifest
from sardonyx.runtime.model import Model, Step
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.threads import usable_cores

pytestmark = pytest.mark.parity

Answers = Mapping[str, tuple[list[int], list[int]]]

NEW_TOKENS = 64
LONG_TEXT = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")


def said(*contents: str) -> list[dict[str, str]]:
    """A chat whose turns alternate, the user's first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


PROMPTS: Mapping[str, Prompt] = {
    "a question": said("Why is the sky blue?"),
    "a system prompt": [
        {"role": "system", "content": "You are a pirate and answer like one."},
        *said("How do I make a good cup of tea?"),
    ],
    "several turns": said(
        "Name three rivers of Europe.",
        "The Danube, the Rhine and the Volga.",
        "Which of them is longest, and why?",
    ),
    "asked for code": said("Write a Python function that says whether a number is prime."),
    "code to go on with": 'def merge_sort(values: list[int]):\n    """Merge sort."""\n    if len(',
    "arithmetic": "Multiplication table of 7:\n7 x 1 = 7\n7 x 2 = 14\n7 x 3 = 21\n7 x 4 =",
    "markup": '{"users": [{"id": 1, "name": "Ada", "tags": ["admin", "ops"]}, {"id": 2, "name": "Grace",',
    "French": "Il était une fois, dans un petit village au bord de la mer, un pêcheur qui",
    "Chinese and Japanese": said("请用中文介绍一下北京。それから、日本語で東京を紹介してください。"),
    "Russian and emoji": "Жили-были старик со старухой 👵👴. Однажды 🐟",
    "a long text": LONG_TEXT[:6000],
    "a long chat": said(f"Summarise this licence in simple words:\n\n{LONG_TEXT[2000:6500]}"),
}
LONG = {"a long text", "a long chat"}


@pytest.fixture(scope="module")
def artifacts(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One artifact of the model for each recipe."""
    shelf = tmp_path_factory.mktemp("artifacts")
    for recipe in ("fp32", "int8", "int4"):
        export(smollm2, shelf / recipe, recipe=recipe, options=UNMEASURED)
    return {path.name: path for path in shelf.iterdir()}


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> Any:
    """The model in transformers, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(usable_cores())
    return AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def answers(artifacts: Mapping[str, Path], reference: Any) -> Answers:
    """For each prompt its ids and those of transformers' greedy continuation, past the end of the answer."""
    import torch

    llm = LLM.load(artifacts["fp32"])
    greedy = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    answers = {}
    for name, prompt in PROMPTS.items():
        ids = llm.encode(prompt)
        given = torch.tensor([ids])
        with torch.no_grad():
            output = reference.generate(given, attention_mask=torch.ones_like(given), **greedy)
        answers[name] = ids, output[0, len(ids) :].tolist()
    return answers


@pytest.fixture(scope="module")
def exact(artifacts: Mapping[str, Path]) -> LLM:
    return LLM.load(artifacts["fp32"])


@pytest.mark.parametrize("name", PROMPTS)
def test_l5_float32_gives_the_tokens_of_transformers(exact: LLM, answers: Answers, name: str) -> None:
    ids, continuation = answers[name]
    assert len(continuation) == NEW_TOKENS
    assert len(ids) >= (700 if name in LONG else 1)
    completion = exact.generate(ids, SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True))
    assert list(completion.tokens) == continuation


# The least share of tokens on which a recipe has to agree with transformers.
@pytest.mark.parametrize(("recipe", "least"), [("fp32", 1.0), ("int8", 0.8), ("int4", 0.6)])
def test_l5_recipes_agree(artifacts: Mapping[str, Path], answers: Answers, recipe: str, least: float) -> None:
    """At each position the text so far is that of transformers, so that one other token counts once."""
    manifest = read_manifest(artifacts[recipe])
    model = Model(manifest, OrtProgram(artifacts[recipe], manifest, usable_cores()))
    shares, runs = [], []
    for ids, continuation in answers.values():
        row = model.arena.row()
        (logits,) = model.forward([Step(row, ids + continuation[:-1], wanted=NEW_TOKENS)])
        model.arena.release(row)
        same = logits.argmax(-1) == continuation
        shares.append(same.mean())
        runs.append(NEW_TOKENS if same.all() else int(same.argmin()))
    print(f"\n{recipe}: {np.mean(shares):.3f} of the tokens are those of transformers; first runs: {runs}")
    assert np.mean(shares) >= least
