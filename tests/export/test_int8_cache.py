"""Keys and values in 8 bits: what is stored, how close it comes, and that it may be fed in any way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.export.certificate import Limits, stored_certificate
from sardonyx.export.int8_cache import limits_with, scales
from sardonyx.export.recipes import RECIPES
from sardonyx.models import architectures
from sardonyx.runtime import LLM, SamplingParams
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import read_manifest
from sardonyx.runtime.saved_prefix import read
from sardonyx.runtime.strategies import Feed

INT8 = Options(verify=False, kv="int8")
TEXT = [int(token) for token in np.random.default_rng(0).integers(1, 99, 60)]


def both(name: str, folder: Path, recipe: str = "fp32") -> tuple[LLM, LLM]:
    """The same random model with a cache of float32 and of int8."""
    checkpoint = random_checkpoint(architectures()[name].EXAMPLE)
    for kv in ("float32", "int8"):
        export(checkpoint, folder / kv, recipe=recipe, options=Options(verify=False, kv=kv))
    return LLM.load(folder / "float32", threads=1), LLM.load(folder / "int8", threads=1)


def states_of(llm: LLM, folder: Path) -> list[Any]:
    llm.save_prefix(TEXT, folder / "text.kv")
    return list(read(folder / "text.kv", llm.manifest).states)


def logits_of(llm: LLM, *cuts: int) -> Any:
    """Of every token of the text, fed in pieces that end there."""
    starts = (0, *cuts)
    pieces = [TEXT[a:b] for a, b in zip(starts, (*cuts, len(TEXT)), strict=True)]
    return np.concatenate([rows[0] for rows in llm.logits(*(Feed([p], wanted=len(p)) for p in pieces))])


# of attention all kinds: grouped, with windows and caps on scores, with sinks, of widths no kernel takes
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "phi3", "gpt_neox"])
def test_logits_are_close_and_the_memory_is_a_quarter(name: str, tmp_path: Path) -> None:
    wide, narrow = both(name, tmp_path)
    assert {state.dtype for state in narrow.manifest.states} == {"int8"}
    assert 4 * narrow.manifest.cache_bytes_per_token() == wide.manifest.cache_bytes_per_token()
    a, b = logits_of(wide).astype(np.float64), logits_of(narrow).astype(np.float64)
    a, b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (a, b))
    kl = (np.exp(a) * (a - b)).sum(-1)
    assert 0 < np.median(kl) < 0.003  # the mean says little where a rounded key may choose another expert


def test_what_is_stored_is_the_rounded_state(tmp_path: Path) -> None:
    """Of the first layer, before which nothing has been rounded."""
    wide, narrow = both("llama", tmp_path)
    steps = scales(tmp_path / "float32")
    exact, stored = states_of(wide, tmp_path), states_of(narrow, tmp_path)
    for place, name in enumerate(("0.key", "0.value")):
        (step,) = steps[name]
        assert stored[place].dtype == np.int8
        within = np.abs(stored[place].astype(int)) < 127  # what is larger than any seen before is clipped
        assert within.mean() > 0.95  # random tokens are no text
        assert np.abs(exact[place] / step - stored[place])[within].max() <= 0.5001


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_runs_come_out_however_they_were_cut(recipe: str, tmp_path: Path) -> None:
    """Keys are rounded before anything attends to them, be they of the same run or of one before."""
    _, narrow = both("llama", tmp_path, recipe)
    at_once = logits_of(narrow)
    for cuts in ([20, 41], list(range(2, 60, 2)), [2, 30, 32, 58]):
        assert np.array_equal(logits_of(narrow, *cuts), at_once)
    exact = LLM.load(tmp_path / "int8", threads=1, exact=True)
    assert np.array_equal(logits_of(exact, *range(1, 60)), logits_of(exact))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "phi3", "gpt_neox"])
def test_a_token_alone_is_close_to_the_same_in_a_run(name: str, tmp_path: Path) -> None:
    """They take different kernels, of which both read what the other wrote."""
    _, narrow = both(name, tmp_path)
    at_once, alone = logits_of(narrow), logits_of(narrow, *range(1, 60))
    assert 0 < np.median(np.abs(at_once - alone).max(-1)) < 0.02  # a key may be rounded to the next step


def test_rows_of_any_lengths_share_a_run(tmp_path: Path) -> None:
    """Behind what each of them has cached, padded to the longest; as alone, to the bit."""
    _, narrow = both("llama", tmp_path)
    first, second = [TEXT[:9], TEXT[20:52]], [TEXT[9:20], TEXT[52:54]]
    together = narrow.logits(Feed(first), Feed(second, wanted=2))
    for row in range(2):
        alone = narrow.logits(Feed([first[row]]), Feed([second[row]], wanted=2))
        assert np.array_equal(together[1][row], alone[1][0])


def test_an_answer_is_the_same_with_a_known_prefix(tmp_path: Path) -> None:
    _, narrow = both("llama", tmp_path)
    params = SamplingParams(max_tokens=20, logprobs=1)
    first, second = (narrow.generate(TEXT[:40], params) for _ in range(2))
    assert (first.tokens, first.logprobs) == (second.tokens, second.logprobs)
    assert second.usage.cached_tokens == 32


def test_it_is_certified_and_what_is_promised_is_a_little_less(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(architectures()["llama"].EXAMPLE)
    manifest = export(checkpoint, tmp_path / "model", recipe="fp32", options=Options(kv="int8"))
    certificate = stored_certificate(tmp_path / "model")
    assert certificate is not None
    promised = RECIPES["fp32"].limits.kl_mean
    assert promised is not None
    assert certificate.limits.kl_mean == pytest.approx(promised + 0.01)
    assert 0 < certificate.overall.kl_mean < certificate.limits.kl_mean
    assert read_manifest(tmp_path / "model") == manifest
    assert {path.name for path in (tmp_path / "model").iterdir()} == {*manifest.files, "sardonyx.json"}


def test_a_recipe_that_promises_nothing_promises_nothing_more() -> None:
    assert limits_with(Limits()) == Limits()
    assert limits_with(Limits(kl_mean=0.1)) == Limits(kl_mean=0.11)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    llama, lfm2 = (random_checkpoint(architectures()[name].EXAMPLE) for name in ("llama", "lfm2"))
    with pytest.raises(RequestError, match="a cache of 'int3' is not known; known: float32, int8"):
        export(llama, tmp_path / "model", options=Options(kv="int3"))
    with pytest.raises(RequestError, match="remembers more than keys and values"):
        export(lfm2, tmp_path / "model", recipe="fp32", options=INT8)
    with pytest.raises(RequestError, match="has no place for a cache of int8"):
        export(llama, tmp_path / "model", options=replace(INT8, layout="genai"))
    assert list(tmp_path.iterdir()) == []
