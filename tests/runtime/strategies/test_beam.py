"""Beam search against brute force, greedy decoding, and the probability of what it returns."""

from collections.abc import Sequence
from itertools import combinations, pairwise, product
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import Candidates
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies.beam import Beam, BeamSearch, Growth
from sardonyx.runtime.strategies.diverse_beam import DiverseBeamSearch
from scripted_llm import scripted_llm
from toys import GREEDY, Logits, Player, ToyAnswer, decoded, greedily, logprob, logprobs, request, toy

SEEDS = st.integers(0, 10_000)
OPTIONS = st.builds(
    BeamSearch,
    num_beams=st.integers(1, 6),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.7, 1.0, 2.0]),
    length_normalization=st.sampled_from(["hf", "gnmt"]),
    early_stopping=st.sampled_from([True, False, "never"]),
)
END = frozenset({0})


def best(model: Logits, options: BeamSearch, answer: ToyAnswer, n: int) -> list[tuple[list[int], float]]:
    """The n best texts and their scores."""
    answers = [answer.fork() for _ in range(n)]
    scores = Player([model]).run(options.start(request(*answers)))
    return [(a.tokens, score) for a, score in zip(answers, scores, strict=False)]


def every_text(vocab: int, limit: int, ends: frozenset[int]) -> list[tuple[int, ...]]:
    """All that an answer may be."""
    whole = [text for text in product(range(vocab), repeat=limit) if not ends.intersection(text[:-1])]
    ended = [
        (*text, end)
        for length in range(limit - 1)
        for text in product(set(range(vocab)) - ends, repeat=length)
        for end in ends
    ]
    return whole + ended


@given(SEEDS, st.integers(2, 9), st.sampled_from([frozenset(), END]))
def test_one_beam_is_greedy(seed: int, vocab: int, ends: frozenset[int]) -> None:
    model, answer = toy(vocab, seed), ToyAnswer([1, 0, 1], ends=ends)
    for options in (
        BeamSearch(num_beams=1),
        BeamSearch(num_beams=1, early_stopping=True, length_penalty=0.0),
    ):
        assert decoded(options, model, answer=answer) == greedily(model, answer)


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([(2, 5), (3, 4), (4, 3)]), st.sampled_from([frozenset(), END]))
def test_enough_beams_find_the_likeliest_text_of_all(
    seed: int, size: tuple[int, int], ends: frozenset[int]
) -> None:
    vocab, limit = size
    model, prompt = toy(vocab, seed), [1, 1]
    texts = sorted(every_text(vocab, limit, ends), key=lambda text: -logprob(model, prompt, text))
    options = BeamSearch(num_beams=vocab**limit, length_penalty=0.0, early_stopping="never")
    found = best(model, options, ToyAnswer(prompt, limit, ends), n=5)
    assert [tuple(tokens) for tokens, _ in found] == texts[:5]
    np.testing.assert_allclose(
        [score for _, score in found], [logprob(model, prompt, text) for text in texts[:5]], atol=1e-5
    )


@given(SEEDS, st.booleans())
def test_texts_that_cannot_go_on_are_dropped(seed: int, diverse: bool) -> None:
    """Of two words and an end, with no pair of tokens twice, what is left is found; or there is nothing."""
    model, prompt, limit = toy(5, seed), [1, 2], 5
    texts = []
    for text in every_text(5, limit, END):
        whole = [*prompt, *text]
        pairs = [*pairwise(whole)]
        if {*text} <= {0, 1, 2} and len({*pairs}) == len(pairs):
            texts.append(text)
    params = SamplingParams(allowed_token_ids=(0, 1, 2), no_repeat_ngram_size=2)
    beams = {"num_beams": 64, "length_penalty": 0.0, "early_stopping": "never"}
    options = DiverseBeamSearch(**beams, num_beam_groups=1) if diverse else BeamSearch(**beams)
    answers = [ToyAnswer(prompt, limit, END) for _ in range(64)]
    scores = Player([model]).run(options.start(request(*answers, params=params)))
    expected = sorted(texts, key=lambda text: -logprob(model, prompt, text))
    assert [tuple(a.tokens) for a, _ in zip(answers, scores, strict=False)] == expected
    none = SamplingParams(allowed_token_ids=(1, 2), no_repeat_ngram_size=1)
    with pytest.raises(RequestError, match="no token is left by no_repeat_ngram_size, allowed_token_ids"):
        Player([model]).run(options.start(request(ToyAnswer(prompt, limit, END), params=none)))


@settings(max_examples=50)
@given(SEEDS, OPTIONS)
def test_scores_are_those_of_a_fresh_look(seed: int, options: BeamSearch) -> None:
    model, prompt = toy(6, seed), [3, 1]
    found = best(model, options, ToyAnswer(prompt, 7, END), n=options.num_beams)
    assert len({tuple(tokens) for tokens, _ in found}) == options.num_beams
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    for tokens, score in found:
        base = len(tokens) if options.length_normalization == "hf" else (5 + len(tokens)) / 6
        expected = logprob(model, prompt, tokens) / base**options.length_penalty
        assert score == pytest.approx(expected, abs=1e-5)
        assert len(tokens) == 7 or tokens[-1] == 0


def searched(model: Logits, prompt: list[int], limit: int, options: BeamSearch) -> list[tuple[int, ...]]:
    """Beam search by its definition, without a cache: every continuation of every text is looked at."""
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    width = options.num_beams

    def score(total: float, length: int) -> float:
        base = length if options.length_normalization == "hf" else (5 + length) / 6
        return float(total / base**options.length_penalty)

    while running:
        longer = [
            (total + value, (*text, token))
            for total, text in running
            for token, value in enumerate(logprobs(model([*prompt, *text])))
        ]
        longer = sorted(longer, key=lambda one: -one[0])[: 2 * width]
        over = [one[1][-1] == 0 or len(one[1]) == limit for one in longer]
        running = [one for one, is_over in zip(longer, over, strict=True) if not is_over][:width]
        ended += [
            (score(total, len(text)), text)
            for (total, text), is_over in zip(longer[:width], over, strict=False)
            if is_over
        ]
        ended = sorted(ended, key=lambda one: -one[0])[:width]
        if running and len(ended) == width:
            total, text = running[0]
            hopeful = options.early_stopping == "never" and options.length_penalty > 0
            best = score(total, limit if hopeful else len(text))
            if options.early_stopping is True or best <= ended[-1][0]:
                break
    return [text for _, text in ended]


@settings(max_examples=150)
@given(SEEDS, OPTIONS)
def test_what_is_kept_and_when_it_ends(seed: int, options: BeamSearch) -> None:
    model, prompt = toy(6, seed), [3, 1]
    found = best(model, options, ToyAnswer(prompt, 6, END), n=options.num_beams)
    assert [tuple(tokens) for tokens, _ in found] == searched(model, prompt, 6, options)


def scripted(lines: dict[str, dict[int, float]], vocab: int = 4) -> Logits:
    """Probabilities after some texts; after others the end, 0, is nearly sure."""

    def logits(tokens: Sequence[int]) -> Any:
        probabilities = lines.get("".join(map(str, tokens)), {0: 0.99})
        rest = (1 - sum(probabilities.values())) / (vocab - len(probabilities))
        return np.log([probabilities.get(token, rest) for token in range(vocab)]).astype(np.float32)

    return logits


def test_a_later_word_may_win() -> None:
    """What greedy decoding cannot see, and each way to stop in time."""
    model = scripted({"1": {2: 0.5, 3: 0.45}, "12": {0: 0.4, 1: 0.3, 2: 0.2}, "13": {0: 0.95}})
    answer = ToyAnswer([1], 5, END)
    assert greedily(model, answer)[0] == 2
    assert decoded(BeamSearch(num_beams=2), model, answer=answer) == [3, 0]


def test_early_stopping_says_when_to_stop() -> None:
    """Two texts have ended, but a running one may yet be better for its length."""
    model = scripted(
        {
            "1": {0: 0.5, 2: 0.4},
            "12": {0: 0.5, 2: 0.49},
            "122": {2: 0.97},
            "1222": {2: 0.97},
            "12222": {2: 0.97},
            "122222": {0: 0.97},
        }
    )
    answer = ToyAnswer([1], 6, END)

    def passes(stopping: Any) -> tuple[list[int], int]:
        player, best = Player([model]), answer.fork()
        player.run(BeamSearch(num_beams=2, early_stopping=stopping, length_penalty=1.0).start(request(best)))
        return best.tokens, player.passes

    assert passes(True) == ([0], 2)
    assert passes("never") == ([2, 2, 2, 2, 2, 0], 6)
    assert passes(False)[1] >= 2


def test_the_prompt_is_computed_once_and_rows_follow_their_texts() -> None:
    player, answers = Player([toy(9, 3)]), [ToyAnswer([1] * 40, 5) for _ in range(3)]
    player.run(BeamSearch(num_beams=3).start(request(*answers)))
    assert player.fed == 40 + 4 * 3


@given(SEEDS, st.sets(st.integers(0, 5), min_size=1))
def test_first_tokens_begin_every_text(seed: int, first: set[int]) -> None:
    model = toy(6, seed)
    options = BeamSearch(num_beams=3, first_tokens=tuple(first), length_penalty=0.0)
    found = best(model, options, ToyAnswer([1, 2], 4), n=3)
    assert {tokens[0] for tokens, _ in found} <= first
    for tokens, score in found:
        assert score == pytest.approx(logprob(model, [1, 2], tokens), abs=1e-5)


def test_penalties_change_the_scores_as_in_transformers() -> None:
    """Log probabilities are negative: the repetition penalty multiplies them."""
    model, prompt = toy(5, 1), [1, 2]
    answer = ToyAnswer(prompt, 1)
    (score,) = Player([model]).run(
        BeamSearch(num_beams=1).start(request(answer, params=SamplingParams(repetition_penalty=1.7)))
    )
    expected = {
        token: logprob(model, prompt, [token]) * (1.7 if token in prompt else 1) for token in range(5)
    }
    assert answer.tokens == [max(expected, key=expected.__getitem__)]
    assert score == pytest.approx(max(expected.values()), abs=1e-5)


def test_beam_sampling_repeats_itself_for_a_seed_and_is_scored_by_what_it_draws_from() -> None:
    model, prompt = toy(30, 5, spread=1), [1, 2, 3]
    params = SamplingParams(temperature=0.7, top_k=20)
    texts = set()
    for seed in range(30):
        answers = [ToyAnswer(prompt, 4) for _ in range(2)]
        runs = [
            Player([model]).run(BeamSearch(num_beams=2).start(request(*some, params=params, seed=seed)))
            for some in (answers, [ToyAnswer(prompt, 4) for _ in range(2)])
        ]
        assert runs[0] == runs[1]
        texts.add(tuple(answers[0].tokens))

        def shaped(tokens: Sequence[int]) -> Any:
            logits = model(tokens) / np.float32(0.7)
            return np.where(logits >= np.sort(logits)[-20], logits, -np.inf)

        for answer, score in zip(answers, runs[0], strict=True):
            assert score == pytest.approx(logprob(shaped, prompt, answer.tokens) / 4, abs=1e-5)
    assert len(texts) > 5


def test_continuations_are_drawn_without_replacement() -> None:
    """Pairs, from two beams: P(a, then b) = p(a) p(b) / (1 - p(a)). The wrong weights fail the same test."""
    rng = np.random.default_rng(0)
    logits = [np.log(rng.dirichlet(np.ones(3))).astype(np.float32) for _ in range(2)]
    beams = [Beam(ToyAnswer([1]), np.log(share), 0) for share in (0.7, 0.3)]
    weights = np.concatenate([share * np.exp(row) for share, row in zip((0.7, 0.3), logits, strict=True)])
    draws, rounds = dict.fromkeys(combinations(range(6), 2), 0), 20_000

    def shape(sequence: Any, row: Any) -> Any:
        return Candidates(np.arange(3, dtype=np.int32), row)

    for seed in range(rounds):
        pair = sorted(3 * c.place + c.token for c in Growth(shape, 2, seed)(beams, logits))
        draws[pair[0], pair[1]] += 1

    def chi_square(p: Any) -> float:
        expected = [rounds * p[a] * p[b] * (1 / (1 - p[a]) + 1 / (1 - p[b])) for a, b in draws]
        return sum((draws[pair] - e) ** 2 / e for pair, e in zip(draws, expected, strict=True))

    assert chi_square(weights) < 60  # 14 degrees of freedom: exceeded once in a million
    assert chi_square(np.concatenate([np.exp(row) / 2 for row in logits])) > 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams=0 is out of range: it must be at least 1"),
        ({"num_beams": 2, "length_penalty": float("nan")}, "length_penalty=nan is out of range"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping='always' is out of range"),
        ({"num_beams": "4"}, "num_beams='4' is not of type int"),
        ({"num_beams": 2, "length_normalization": "x"}, "length_normalization='x' is out of range"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as raised:
        BeamSearch(**options)
    assert str(raised.value).startswith(message)


def test_what_a_search_cannot_do_is_refused() -> None:
    answers = [ToyAnswer([1]) for _ in range(3)]
    for options, params, n, message in [
        (BeamSearch(num_beams=2), GREEDY, 3, "n=3 is more than there will be: num_beams=2"),
        (
            BeamSearch(num_beams=2),
            SamplingParams(top_k=5),
            1,
            "top_k=5 is for drawing, and beam search at temperature 0 draws none: leave it at 0",
        ),
    ]:
        with pytest.raises(RequestError) as raised:
            options.start(request(*answers[:n], params=params))
        assert str(raised.value) == message
    for tokens, allowed in ((99,), ()), ((1, 2), (0, 3)):
        params = SamplingParams(allowed_token_ids=allowed)
        impossible = BeamSearch(num_beams=2, first_tokens=tokens).start(request(answers[0], params=params))
        with pytest.raises(RequestError, match="none of them is possible here"):
            Player([toy(4)]).run(impossible)


def test_first_tokens_have_to_be_tokens() -> None:
    with pytest.raises(RequestError, match="first_tokens: token 999 is outside the vocabulary of 102"):
        scripted_llm().stream("a", SamplingParams(), BeamSearch(num_beams=2, first_tokens=(5, 999)))
