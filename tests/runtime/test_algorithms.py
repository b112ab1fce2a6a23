"""All algorithms through the facade: side by side in one engine each gives what it gives alone."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixed import TOKENS, Case, cases, params
from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM
from sardonyx.runtime.backends.scripted import ScriptedProgram
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.strategies.beam import BeamSearch
from sardonyx.runtime.strategies.contrastive_decoding import ContrastiveDecoding
from sardonyx.runtime.strategies.contrastive_search import ContrastiveSearch
from sardonyx.runtime.strategies.ensemble import Ensemble
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup
from sardonyx.runtime.stream import Stream
from scripted_llm import VOCABULARY, scripted_llm, scripted_llm_manifest
from toys import toy

Answer = list[tuple[tuple[int, ...], str, float | None]]
Pair = tuple[LLM, LLM]


def prompt_of(name: str) -> str:
    """Of different lengths, and with something to look up."""
    return (name + ", ") * (1 + len(name) % 4)


def started(llm: LLM, name: str, case: Case) -> Stream:
    algorithm, asked, n = case
    return llm.stream_n(prompt_of(name), n, asked, algorithm)


def answer_of(stream: Stream) -> Answer:
    return [(c.tokens, c.text, c.score) for c in stream.completions]


def alone(llm: LLM, name: str, case: Case) -> Answer:
    stream = started(llm, name, case)
    for _ in stream:
        pass
    return answer_of(stream)


def scripted_pair(exact: bool) -> Pair:
    def made(seed: int) -> LLM:
        model, hidden = toy(len(VOCABULARY), seed), toy(6, seed + 10)
        llm = scripted_llm()
        manifest = scripted_llm_manifest(hidden_size=6)
        return LLM(manifest, llm.tokenizer, None, ScriptedProgram(model, hidden), exact)

    return made(0), made(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    shelf = tmp_path_factory.mktemp("pair")
    for seed in (0, 1):
        options = Options(verify=False, hidden_states=True)
        export(random_checkpoint(EXAMPLE, seed), shelf / str(seed), recipe="fp32", options=options)
    return shelf / "0", shelf / "1"


@pytest.fixture(params=["scripted", "scripted, exact", "random", "random, exact"])
def pair(request: pytest.FixtureRequest, folders: tuple[Path, Path]) -> Iterator[Pair]:
    exact = request.param.endswith("exact")
    if request.param.startswith("scripted"):
        pair = scripted_pair(exact)
    else:
        pair = tuple(LLM.load(folder, threads=1, exact=exact) for folder in folders)
    yield pair
    for llm in pair:
        assert len(llm._model.arena) == 0


def test_side_by_side_each_gives_what_it_gives_alone(pair: Pair) -> None:
    llm, amateur = pair
    expected = {name: alone(llm, name, case) for name, case in cases(amateur).items()}
    scores = llm.score("one of ", ["these", "those", "them"])
    rng = random.Random(1)
    for _ in range(3):
        waiting = list(cases(amateur).items())
        rng.shuffle(waiting)
        running: list[tuple[str, Stream]] = []
        while waiting or any(not stream._task.done for _, stream in running):
            if waiting and rng.random() < 0.5:
                name, case = waiting.pop()
                running.append((name, started(llm, name, case)))
            elif rng.random() < 0.1:
                assert llm.score("one of ", ["these", "those", "them"]) == scores
            llm._engine.step()
        for name, stream in running:
            assert stream._task.error is None
            assert answer_of(stream) == expected[name], name


def test_guesses_change_nothing(pair: Pair) -> None:
    llm, _ = pair
    for temperature in (0.0, 0.8, 1.2):
        for prompt in ("to be or not to be, ", "a", "abababababab"):
            asked = params(temperature=temperature)
            plain = llm.generate(prompt, asked)
            for length in (1, 4, 10):
                options = PromptLookup(prompt_lookup_num_tokens=length, max_matching_ngram_size=3)
                assert llm.generate(prompt, asked, options).tokens == plain.tokens


def test_an_exact_engine_gives_the_bits_of_a_prompt(folders: tuple[Path, Path]) -> None:
    """However the text is cut: which single tokens in an engine that is not exact do not."""
    text = np.random.default_rng(0).integers(1, 90, 40).tolist()

    def logits(exact: bool, cuts: Callable[[], Iterator[int]]) -> Any:
        from sardonyx.runtime.strategies import Feed

        llm = LLM.load(folders[0], threads=1, exact=exact)
        lengths, fed, feeds = cuts(), 0, []
        while fed < len(text):
            piece = text[fed : fed + next(lengths)]
            fed += len(piece)
            feeds.append(Feed([piece], wanted=len(piece)))
        return np.concatenate([rows[0] for rows in llm.logits(*feeds)])

    def always(*lengths: int) -> Callable[[], Iterator[int]]:
        def cuts() -> Iterator[int]:
            while True:
                yield from lengths

        return cuts

    whole = logits(True, always(40))
    for cuts in (always(2), always(7, 1, 3), always(2, 1), always(5)):
        assert np.array_equal(logits(True, cuts), whole)
    assert np.array_equal(logits(True, always(1))[1:], whole[1:])  # before the first token there is none
    assert np.array_equal(logits(False, always(40)), whole)
    assert not np.array_equal(logits(False, always(1)), whole)


def test_several_answers_compute_the_prompt_once() -> None:
    llm, _ = scripted_pair(exact=False)
    llm.generate_n("a prompt of some length", 5, params(temperature=1.0))
    fed = sum(int(batch.counts.sum()) for batch in llm._program.batches)
    assert fed <= len("a prompt of some length") + 5 * (TOKENS - 1)
    first = llm._program.batches[0]
    assert first.ids.shape == (1, len("a prompt of some length"))


def test_hidden_states_have_to_be_there(folders: tuple[Path, Path]) -> None:
    llm = scripted_llm(template=None)
    with pytest.raises(RequestError, match="puts out no hidden states: export it with --hidden-states"):
        llm.generate("a", params(top_k=4), ContrastiveSearch(penalty_alpha=0.5))


def test_models_that_decide_together_need_the_same_tokens(folders: tuple[Path, Path]) -> None:
    llm, other = LLM.load(folders[0], threads=1), scripted_llm(template=None)
    for algorithm in (Ensemble(models=(other,)), ContrastiveDecoding(amateur=other)):
        with pytest.raises(RequestError, match=r"random and parrot have different tokens \(of \d+ and 102\)"):
            llm.generate("a", params(), algorithm)


def test_numbers_out_of_range_are_refused(pair: Pair) -> None:
    llm, amateur = pair
    with pytest.raises(RequestError, match="n=0 is out of range: it must be at least 1"):
        llm.generate_n("a", 0)
    with pytest.raises(RequestError, match="n=4 is more than there will be: num_beams=3"):
        llm.generate_n("a", 4, params(), BeamSearch(num_beams=3))
    with pytest.raises(RequestError, match="an ensemble gives one answer, not n=2"):
        llm.generate_n("a", 2, params(), Ensemble(models=(amateur,)))
    with pytest.raises(RequestError, match="mirostat=2 learns from each token drawn"):
        llm.generate("a", params(temperature=1.0, mirostat=2), BeamSearch(num_beams=3))


def test_beams_end_at_stop_strings(pair: Pair) -> None:
    """In the middle of a word of several tokens too; what is shown ends before it."""
    llm, _ = pair
    short = BeamSearch(num_beams=3, length_penalty=-2.0)
    (plain,) = llm.generate_n("tell me ", 1, params(), BeamSearch(num_beams=3))
    stop = plain.text[1:3]
    stopped = llm.generate_n("tell me ", 3, params(stop=(stop,)), short)
    assert all(stop not in completion.text for completion in stopped)
    assert any(completion.finish_reason == "stop" for completion in stopped)
    for completion in stopped:
        assert completion.score == pytest.approx(
            llm.score("tell me ", [completion.tokens]).best.logprob * len(completion.tokens) ** 2, rel=1e-4
        )
