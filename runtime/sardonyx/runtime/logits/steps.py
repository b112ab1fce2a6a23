"""The steps that a request asks for, each by the name of the parameter that switches it on. Does none."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from sardonyx.runtime.logits import bans, penalties, truncation
from sardonyx.runtime.logits.candidates import Processor, Transform
from sardonyx.runtime.logits.dry import Repeats, dry
from sardonyx.runtime.logits.feedback import AdaptiveP, Feedback, Mirostat
from sardonyx.runtime.logits.history import History, Ngrams, Tally
from sardonyx.runtime.logits.profiles import Profile
from sardonyx.runtime.logits.temperature import dynamic_temperature, greedy, temperature
from sardonyx.runtime.params import SamplingParams, Word, is_given


@dataclass(frozen=True)
class Setting:
    """Where a request's text stands, which its parameters do not say.

    The first `prompt_tokens` of the sequence were given (None: not known), `eos` are the model's own end
    tokens, `vocab_size` is the length of its rows (None: not known).
    """

    prompt_tokens: int | None = None
    eos: tuple[int, ...] = ()
    vocab_size: int | None = None


@dataclass
class Asked:
    """All that the makers of steps draw upon."""

    params: SamplingParams
    setting: Setting
    profile: Profile
    history: History
    tallies: dict[int, Tally] = field(default_factory=dict)

    def active(self, table: Container[str]) -> list[str]:
        """The names in a table that were asked for, in the profile's order."""
        return [name for name in self.profile.order if name in table and is_given(self.params, name)]

    def start(self, name: str) -> int:
        """The first token that a step looks at."""
        return self.history.prompt_tokens if name in self.profile.of_answer else 0

    def tally(self, name: str) -> Tally:
        """What a penalty counts; steps that count the same share it."""
        start = self.start(name)
        if start not in self.tallies:
            self.tallies[start] = self.history.watch(Tally(start, self.last_n(self.params.repeat_last_n)))
        return self.tallies[start]

    def last_n(self, asked: int | None) -> int | None:
        """How many tokens to look back on; None is all."""
        return self.profile.last_n if asked is None else None if asked == -1 else asked

    def dry(self) -> Processor:
        """The DRY penalty with its counter."""
        params, breakers = self.params, ids_of(self.params.dry_sequence_breakers)
        repeats = self.history.watch(Repeats(breakers, self.last_n(params.dry_penalty_last_n)))
        return dry(params.dry_multiplier, params.dry_base, params.dry_allowed_length, repeats)

    def decay(self) -> Processor:
        """The exponential decay length penalty."""
        start, factor = self.params.exponential_decay_length_penalty or (0, 1.0)
        return penalties.exponential_decay_length_penalty(start, factor, self.setting.eos, self.history)

    def degree(self) -> Transform:
        """Temperature, however it is asked for."""
        params = self.params
        if params.dynatemp_range:
            return dynamic_temperature(params.temperature, params.dynatemp_range, params.dynatemp_exponent)
        return temperature(params.temperature) if params.temperature else greedy


PROCESSORS: Mapping[str, Callable[[Asked], Processor]] = {
    "logit_bias": lambda a: bans.logit_bias(a.params.logit_bias),
    "repetition_penalty": lambda a: penalties.repetition_penalty(
        a.params.repetition_penalty, a.tally("repetition_penalty")
    ),
    "frequency_penalty": lambda a: penalties.frequency_penalty(
        a.params.frequency_penalty, a.tally("frequency_penalty")
    ),
    "presence_penalty": lambda a: penalties.presence_penalty(
        a.params.presence_penalty, a.tally("presence_penalty")
    ),
    "dry_multiplier": Asked.dry,
    "exponential_decay_length_penalty": Asked.decay,
    "no_repeat_ngram_size": lambda a: bans.no_repeat_ngram_size(
        a.history.watch(Ngrams(a.params.no_repeat_ngram_size)), a.history
    ),
    "bad_words": lambda a: bans.bad_words(ids_of(a.params.bad_words), a.history, a.start("bad_words")),
    "min_tokens": lambda a: bans.min_tokens(
        a.params.min_tokens, {*a.params.stop_token_ids, *a.setting.eos}, a.history
    ),
    "suppress_tokens": lambda a: bans.suppress_tokens(a.params.suppress_tokens),
    "begin_suppress_tokens": lambda a: bans.begin_suppress_tokens(a.params.begin_suppress_tokens, a.history),
    "allowed_token_ids": lambda a: bans.allowed_token_ids(a.params.allowed_token_ids),
    "forced_bos_token_id": lambda a: bans.forced_bos_token_id(a.params.forced_bos_token_id or 0, a.history),
}

TRUNCATIONS: Mapping[str, Callable[[Asked], Transform]] = {
    "top_n_sigma": lambda a: truncation.top_n_sigma(a.params.top_n_sigma),
    "top_h": lambda a: (truncation.top_h_of_hundred if a.profile.top_h_of_hundred else truncation.top_h)(
        a.params.top_h
    ),
    "top_k": lambda a: truncation.top_k(a.params.top_k, a.profile.ties),
    "top_p": lambda a: truncation.top_p(a.params.top_p),
    "min_p": lambda a: truncation.min_p(a.params.min_p),
    "typical_p": lambda a: truncation.typical_p(a.params.typical_p, a.profile.ties),
    "epsilon_cutoff": lambda a: truncation.epsilon_cutoff(a.params.epsilon_cutoff),
    "eta_cutoff": lambda a: truncation.eta_cutoff(a.params.eta_cutoff),
    "xtc_probability": lambda a: truncation.xtc(a.params.xtc_threshold),
}

FEEDBACK: Mapping[str, Callable[[Asked], Feedback]] = {
    "mirostat": lambda a: Mirostat(
        a.params.mirostat, a.params.mirostat_tau, a.params.mirostat_eta, a.profile.surprise
    ),
    "adaptive_target": lambda a: AdaptiveP(a.params.adaptive_target or 0.0, a.params.adaptive_decay),
}

OF_ANSWER = {"min_tokens", "begin_suppress_tokens", "forced_bos_token_id", "exponential_decay_length_penalty"}
"""Steps that need to know where the answer begins, in every profile."""

BANS = {"no_repeat_ngram_size", "bad_words", "min_tokens", "suppress_tokens", "begin_suppress_tokens"} | {
    "allowed_token_ids"
}
"""Steps that may leave no token."""


def ids_of(words: tuple[Word, ...]) -> list[tuple[int, ...]]:
    """Words as token ids, which texts must have been turned into."""
    texts = [word for word in words if isinstance(word, str)]
    if texts:
        raise ValueError(f"{texts[0]!r} is a text; a tokenizer has to say of which tokens it consists")
    return [word for word in words if not isinstance(word, str)]
