"""From a row of logits to a token: the steps of one request, in the order of its profile, and the draw.

Three kinds of step:

    Processor   row -> None                changes logits by what the text so far was: penalties, biases, bans
    Transform   candidates -> candidates   sees the distribution alone: temperature, truncations
    Feedback    shape, then learn          sees also what is picked: mirostat, adaptive-p

Nothing here knows of models, caches or text.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits.candidates import Candidates, Row, Tokens, Transform, check, everything
from sardonyx.runtime.logits.feedback import Feedback
from sardonyx.runtime.logits.history import History
from sardonyx.runtime.logits.honour import check_honoured
from sardonyx.runtime.logits.logprobs import LogprobLog
from sardonyx.runtime.logits.noise import coin, draw
from sardonyx.runtime.logits.profiles import PROFILES
from sardonyx.runtime.logits.steps import BANS, FEEDBACK, PROCESSORS, TRUNCATIONS, Asked, Setting
from sardonyx.runtime.params import SamplingParams

Pick: TypeAlias = Callable[[Tokens, Row, int], int]
"""(sequence so far, logits of its last position, absolute position of the token to pick) -> token id."""

Pipeline: TypeAlias = Callable[[Tokens, Row], Candidates]
"""(sequence so far, logits of its last position) -> what the next token is drawn from."""

UNKNOWN = Setting()

SCALE_FREE = ("top_n_sigma", "top_k")
"""Truncations that are the same at any temperature: done first, they leave it less to do."""

KEEP_THE_LIKELIEST = TRUNCATIONS.keys() - {"typical_p", "xtc_probability"}


class NoTokenError(RequestError):
    """Bans leave nothing that could follow a text."""


class Chain:
    """All that shapes the distribution, before the draw: softmax of the result is what is sampled from.

    The result depends on its arguments alone, but sequences that have much in common with the one before are
    handled fastest. With temperature 0 one candidate is left: the likeliest of those that the steps before
    the temperature leave. Raises ArtifactError for logits that are no distribution, and NoTokenError.
    """

    def __init__(self, params: SamplingParams, setting: Setting, seed: int) -> None:
        profile = PROFILES[params.profile]
        check_honoured(params, setting, profile)
        self._seed = seed
        self._xtc_probability = params.xtc_probability
        self._history = History(setting.prompt_tokens or 0)
        request = Asked(params, setting, profile, self._history)
        self._bans = request.active(BANS)
        self._processors = [PROCESSORS[name](request) for name in request.active(PROCESSORS)]
        self._transforms = [(name, _transform(name, request)) for name in _transforms(request)]

    def __call__(self, sequence: Tokens, logits: Row, position: int | None = None) -> Candidates:
        """What the token at a position is drawn from. Without a position: the one behind the sequence."""
        check(sequence, logits)
        if self._processors:
            logits = self._processed(sequence, logits)
        candidates = everything(logits)
        for name, transform in self._transforms:
            if name != "xtc_probability" or self._excludes(len(sequence) if position is None else position):
                candidates = transform(candidates)
        return candidates

    def _processed(self, sequence: Tokens, logits: Row) -> Row:
        self._history.follow(sequence)
        logits = logits.copy()
        for process in self._processors:
            process(logits)
        if self._bans and logits.max() == -np.inf:
            raise NoTokenError(f"after {len(sequence)} tokens no token is left by {', '.join(self._bans)}")
        return logits

    def _excludes(self, position: int) -> bool:
        """XTC's coin: its side is fixed by seed and position, as the draw is."""
        return coin(self._seed, position) < self._xtc_probability


def _transforms(request: Asked) -> list[str]:
    """Names of the transforms, in the order in which to take them."""
    params, order = request.params, request.profile.order
    names = [name for name in order if name == "temperature" or name in request.active(TRUNCATIONS)]
    place = names.index("temperature")
    if params.temperature == 0 and not params.dynatemp_range:
        before = names[:place]
        return ["temperature"] if KEEP_THE_LIKELIEST.issuperset(before) else [*before, "temperature"]
    if params.temperature == 1 and not params.dynatemp_range:
        return names[:place] + names[place + 1 :]
    while not params.dynatemp_range and names[place + 1 : place + 2] and names[place + 1] in SCALE_FREE:
        names[place], names[place + 1] = names[place + 1], names[place]
        place += 1
    return names


def _transform(name: str, request: Asked) -> Transform:
    return request.degree() if name == "temperature" else TRUNCATIONS[name](request)


def pipeline(params: SamplingParams, setting: Setting = UNKNOWN, seed: int = 0) -> Pipeline:
    """The chain of one request, for algorithms that weigh many continuations. `seed` is for XTC's coin.

    Raises RequestError for what cannot be honoured, and for what learns from the tokens picked.
    """
    if names := Asked(params, setting, PROFILES[params.profile], History()).active(FEEDBACK):
        raise RequestError(
            f"{names[0]}={getattr(params, names[0])!r} learns from each token drawn; leave it out for an"
            " algorithm that weighs many"
        )
    return Chain(params, setting, seed)


class Picker:
    """The rule by which one request picks its tokens, with the state of its penalties and of mirostat.

    Asking again for an earlier position forgets what was picked behind it.
    """

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        setting: Setting = UNKNOWN,
        log: LogprobLog | None = None,
    ) -> None:
        profile = PROFILES[params.profile]
        request = Asked(params, setting, profile, History())
        self._chain = Chain(params, setting, seed)
        self._feedback: Feedback | None = next(
            (FEEDBACK[name](request) for name in request.active(FEEDBACK)), None
        )
        self._seed = seed
        self._log = log
        self._raw = params.logprobs_mode == "raw"

    def __call__(self, sequence: Tokens, logits: Row, position: int) -> int:
        candidates = self.shaped(sequence, logits, position)
        ids = candidates.ids
        token = draw(candidates, self._seed, position) if len(ids) > 1 else int(ids[0])
        if self._feedback:
            self._feedback.learn(token)
        if self._log:
            self._log.note(position, token, everything(logits) if self._raw else candidates)
        return token

    def shaped(self, sequence: Tokens, logits: Row, position: int) -> Candidates:
        """What the token at a position is drawn from."""
        candidates = self._chain(sequence, logits, position)
        return self._feedback.shape(candidates, position) if self._feedback else candidates


def make_picker(
    params: SamplingParams, seed: int, setting: Setting = UNKNOWN, log: LogprobLog | None = None
) -> Pick:
    """The rule by which one request picks its tokens. `seed` replaces `params.seed`, which may be None.

    `log` is given the log-probabilities, as `params.logprobs_mode` wants them. Raises RequestError for what
    cannot be honoured.
    """
    return Picker(params, seed, setting, log)
