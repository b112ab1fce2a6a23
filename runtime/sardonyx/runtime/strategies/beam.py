"""Beam search and beam sampling: several texts grow side by side, and the likeliest as a whole wins.

What is kept, what ends the search and how texts are scored is as in transformers' `generate`. Its origin:
Graves 2012 (arXiv 1211.3711), Wu 2016 (arXiv 1609.08144).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import Candidates, NoTokenError, Pipeline, Tokens, noise_key, uniform
from sardonyx.runtime.params import PositiveCount, TokenId, says
from sardonyx.runtime.probabilities import largest, log_softmax
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, prompt_fed

Beams = Annotated[PositiveCount, says("beam search: texts that grow side by side")]
LengthPenalty = Annotated[float, says("beam search: above 0 favours long texts, below short ones")]
Normalization = Annotated[Literal["hf", "gnmt"], says("beam search: how length counts")]
EarlyStopping = Annotated[bool | Literal["never"], says("beam search: when enough texts have ended, end")]


class BeamSearch(Algorithm, frozen=True, kw_only=True):
    """Keep the `num_beams` likeliest texts at every step. With a temperature above 0 it is beam sampling: the
    continuations are drawn, without replacement, in proportion to the probability of the whole text.

    A text's score is the sum of its log probabilities, divided by its length, end token included, to the
    power of `length_penalty`: above 0 favours long texts. `length_normalization` "gnmt" divides by
    ((5 + length) / 6) ** length_penalty instead. The search ends when `num_beams` texts have ended and
    (`early_stopping` True) at once, (False) no running one would rank among them if it ended now, ("never")
    none could, however it went on. Texts begin with one of `first_tokens`, if there are any.

    n answers are the n best texts. Stop strings, stop tokens and the token limit end a text as they end any
    answer. Penalties and bans change log probabilities, which are not made to sum to 1 again; after
    temperature and truncations they are.
    """

    num_beams: Beams
    length_penalty: LengthPenalty = 1.0
    length_normalization: Normalization = "hf"
    early_stopping: EarlyStopping = False
    first_tokens: Annotated[tuple[TokenId, ...], says("token ids, with one of which to begin")] = ()

    def start(self, request: Request) -> Decoding[list[float]]:
        request.at_most(self.num_beams, "num_beams")
        growth = growth_of(request, self)
        return delivered(beam_search(request.answers[0].fork(), self, growth), request)

    def score(self, logprob: float, length: int) -> float:
        """What a text of so many tokens is ranked by."""
        base = length if self.length_normalization == "hf" else (5 + length) / 6
        return logprob / float(base**self.length_penalty)


@dataclass(frozen=True, eq=False)
class Beam:
    """A text that grows, the sum of the log probabilities of what was generated, and the cache row that it
    continues.
    """

    answer: Answer
    logprob: float
    row: int


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A text that has ended, prompt included."""

    sequence: Sequence[int]
    logprob: float
    score: float


class Continuation(NamedTuple):
    """One token more for the beam at a place, and the log probability that the text then has."""

    logprob: float
    place: int
    token: int


@dataclass(frozen=True)
class Growth:
    """How texts are continued: in the `count` likeliest ways or, with a seed, in as many that are drawn.

    `shape` makes of a text, and of the log probabilities of what follows it, those that count.
    """

    shape: Pipeline
    count: int
    seed: int | None = None

    def __call__(self, beams: Sequence[Beam], logits: Sequence[Float32]) -> list[Continuation]:
        """Continuations of the beams, likeliest first, from the logits of what follows each. Of equals, the
        first beam's come first, with the lowest tokens. Raises NoTokenError if none can go on.
        """
        found: list[tuple[float, Continuation]] = []
        stuck = None
        for place, beam in enumerate(beams):
            try:
                found += self._of(place, beam, logits[place])
            except NoTokenError as error:
                stuck = error
        if stuck and not found:
            raise stuck
        found = sorted(found, key=lambda one: -one[0])[: self.count]
        return sorted((continuation for _, continuation in found), key=lambda one: -one.logprob)

    def _of(self, place: int, beam: Beam, logits: Float32) -> Iterator[tuple[float, Continuation]]:
        """Those of one beam, each with what it is chosen by: log probability of the text and, to draw, noise.

        The largest log probabilities + Gumbel noise are a draw without replacement (Kool 2019, arXiv
        1903.06059). The noise is a hash of (seed, position, place among the beams, token).
        """
        ids, logprobs = self.shape(beam.answer.sequence, log_softmax(logits))
        keys = logprobs
        if self.seed is not None:
            noise = uniform(
                ids + np.int32(place * len(logits)), noise_key(self.seed, len(beam.answer.sequence))
            )
            logprobs = log_softmax(logprobs)
            keys = logprobs - np.log(-np.log(noise)).astype(np.float32)
        for at in largest(keys, self.count):
            logprob = beam.logprob + float(logprobs[at])
            yield beam.logprob + float(keys[at]), Continuation(logprob, place, int(ids[at]))


def beam_search(answer: Answer, options: BeamSearch, grow: Growth) -> Decoding[list[Hypothesis]]:
    """The `num_beams` best texts that continue an answer, best first."""
    search = Search(answer, options)
    logits: Sequence[Float32] = [(yield from prompt_fed(answer))]
    while True:
        search.grow(grow, [rows[-1] for rows in logits])
        if search.done:
            return search.ended
        logits = yield Feed(
            [beam.answer.sequence[-1:] for beam in search.running],
            keep=[(beam.row, len(beam.answer.sequence) - 1) for beam in search.running],
        )


class Search:
    """The texts that grow, likeliest first, and the best of those that have ended, best first."""

    def __init__(self, answer: Answer, options: BeamSearch) -> None:
        self.running = [Beam(answer, 0.0, 0)]
        self.ended: list[Hypothesis] = []
        self.said: list[int] = []
        """The words with which texts have just gone on; end tokens are none."""
        self._options = options
        self._width = options.num_beams
        self._prompt_tokens = len(answer.sequence)
        self._longest = answer.left

    def grow(self, growth: Growth, logits: Sequence[Float32]) -> None:
        """Continue the texts, from the logits of what follows each. Those that cannot go on are dropped.
        Raises NoTokenError if none can, and none has ended.
        """
        try:
            self.advance(growth(self.running, logits))
        except NoTokenError:
            if not self.ended:
                raise
            self.running, self.said = [], []

    def advance(self, continuations: Sequence[Continuation]) -> None:
        """Let the first `num_beams` grow that do not end. Those that end rank, if they come among the first
        `num_beams` of all.
        """
        growing: list[Beam] = []
        self.said = []
        for rank, (logprob, place, token) in enumerate(continuations):
            if rank >= self._width == len(growing):
                break
            answer = self.running[place].answer.fork()
            if answer.add(token):
                growing.append(Beam(answer, logprob, place))
                self.said.append(token)
            elif rank < self._width:
                self.said += {token} - answer.ends
                score = self._options.score(logprob, len(answer.sequence) - self._prompt_tokens)
                self.ended.append(Hypothesis(answer.sequence, logprob, score))
        self.running = growing
        self.ended = sorted(self.ended, key=lambda text: -text.score)[: self._width]

    @property
    def done(self) -> bool:
        """Whether nothing can become better, or is expected to."""
        if not self.running:
            return True
        if len(self.ended) < self._width:
            return False
        if self._options.early_stopping is True:
            return True
        best = self.running[0]
        length = len(best.answer.sequence) - self._prompt_tokens
        if self._options.early_stopping == "never" and self._options.length_penalty > 0:
            length = self._longest
        return self._options.score(best.logprob, length) <= self.ended[-1].score


def delivered(search: Decoding[list[Hypothesis]], request: Request) -> Decoding[list[float]]:
    """Search, fill the answers with the best texts, and return their scores."""
    hypotheses = yield from search
    for answer, hypothesis in zip(request.answers, hypotheses, strict=False):
        for token in hypothesis.sequence[len(answer.sequence) :]:
            answer.add(token)
    return [hypothesis.score for hypothesis in hypotheses]


def growth_of(request: Request, options: BeamSearch) -> Growth:
    """How the texts of a request are continued. Raises RequestError for what a beam search cannot do."""
    answer, params = request.answers[0], request.params
    draws = params.temperature > 0
    if not draws:
        request.draws_nothing("beam search at temperature 0")
    request.no_logprobs("beam search")
    shape = request.shape(params if draws else msgspec.structs.replace(params, temperature=1.0))
    if options.first_tokens:
        vocab_size = request.setting.vocab_size
        if vocab_size is not None and max(options.first_tokens) >= vocab_size:
            raise RequestError(
                f"first_tokens: token {max(options.first_tokens)} is outside the vocabulary of {vocab_size}"
            )
        shape = beginning_with(options.first_tokens, len(answer.sequence), shape)
    count = max(2, 1 + len(answer.ends)) * options.num_beams
    return Growth(shape, count, request.seed if draws else None)


def beginning_with(tokens: Sequence[int], prompt_tokens: int, shape: Pipeline) -> Pipeline:
    """Of what follows the prompt, only these tokens. Their log probabilities are left as they are."""

    def shaped(sequence: Tokens, logprobs: Float32) -> Candidates:
        candidates = shape(sequence, logprobs)
        if len(sequence) > prompt_tokens:
            return candidates
        possible = np.isin(candidates.ids, tokens) & np.isfinite(candidates.logits)
        begun = candidates.keep(np.flatnonzero(possible))
        if not len(begun.ids):
            raise RequestError(f"first_tokens={tuple(tokens)}: none of them is possible here")
        return begun

    return shaped
