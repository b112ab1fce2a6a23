"""Diverse beam search: groups of beams, each discouraged from the words of the groups before it.

Vijayakumar 2016 (arXiv 1610.02424).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.logits import Candidates, Pipeline, Tokens
from sardonyx.runtime.params import Amount, PositiveCount, says
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, prompt_fed
from sardonyx.runtime.strategies.beam import (
    Beams,
    BeamSearch,
    EarlyStopping,
    Growth,
    Hypothesis,
    LengthPenalty,
    Normalization,
    Search,
    delivered,
    growth_of,
)
from sardonyx.runtime.values import out_of_range


class DiverseBeamSearch(Algorithm, frozen=True, kw_only=True):
    """`num_beam_groups` beam searches in step, of `num_beams` / `num_beam_groups` beams each.

    At every step a token's log probability is lowered by `diversity_penalty` for every beam of the groups
    before that has just gone on with it; what was taken off stays off the text's score. The n best texts of
    all groups are the answers. The other options are those of beam search.
    """

    num_beams: Beams
    num_beam_groups: Annotated[PositiveCount, says("diverse beam search: into how many the beams are split")]
    diversity_penalty: Annotated[Amount, says("diverse beam search: the cost of another group's word")] = 1.0
    length_penalty: LengthPenalty = 1.0
    length_normalization: Normalization = "hf"
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_beams % self.num_beam_groups:
            divisor = f"a divisor of num_beams={self.num_beams}"
            raise out_of_range("num_beam_groups", self.num_beam_groups, divisor)

    @property
    def group(self) -> BeamSearch:
        """The search of each group."""
        return BeamSearch(
            num_beams=self.num_beams // self.num_beam_groups,
            length_penalty=self.length_penalty,
            length_normalization=self.length_normalization,
            early_stopping=self.early_stopping,
        )

    def start(self, request: Request) -> Decoding[list[float]]:
        request.draws_nothing("diverse beam search")
        request.at_most(self.num_beams, "num_beams")
        growth = growth_of(request, self.group)
        return delivered(diverse_beam_search(request.answers[0].fork(), self, growth), request)


def diverse_beam_search(
    answer: Answer, options: DiverseBeamSearch, grow: Growth
) -> Decoding[list[Hypothesis]]:
    """The best texts that continue an answer, of all groups, best first."""
    searches = [Search(answer, options.group) for _ in range(options.num_beam_groups)]
    logits: Sequence[Float32] = [(yield from prompt_fed(answer))]
    live = [(search, 0) for search in searches]  # each with the index of its first row
    while True:
        said: Counter[int] = Counter()
        for search, first in live:
            rows = logits[first : first + len(search.running)]
            fresh = replace(grow, shape=discouraging(said, options.diversity_penalty, grow.shape))
            search.grow(fresh, [row[-1] for row in rows])
            said.update(search.said)
        growing = [(beam, first) for search, first in live if not search.done for beam in search.running]
        if not growing:
            return sorted(
                (text for search in searches for text in search.ended), key=lambda text: -text.score
            )
        logits = yield Feed(
            [beam.answer.sequence[-1:] for beam, _ in growing],
            keep=[(first + beam.row, len(beam.answer.sequence) - 1) for beam, first in growing],
        )
        live = _laid_out([search for search, _ in live if not search.done])


def _laid_out(searches: list[Search]) -> list[tuple[Search, int]]:
    """Searches with the index of the first of their rows, one search's rows behind the other's."""
    starts = np.cumsum([0, *(len(search.running) for search in searches)])
    return list(zip(searches, starts.tolist(), strict=False))


def discouraging(said: Mapping[int, int], penalty: float, shape: Pipeline) -> Pipeline:
    """Lower the log probability of tokens by how often they were said."""

    def shaped(sequence: Tokens, logprobs: Float32) -> Candidates:
        ids, shaped = shape(sequence, logprobs)
        shaped = shaped.copy()
        for token, count in said.items():
            shaped[ids == token] -= penalty * count
        return Candidates(ids, shaped)

    return shaped
