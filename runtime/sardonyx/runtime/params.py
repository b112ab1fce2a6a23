"""What a caller may ask of a generation: sampling parameters under Hugging Face's names, and when to stop.

Defaults are neutral: greedy, no penalty, until the model ends its answer or the context is full. A model may
come with defaults of its own, read here from its generation config.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.values import checked, out_of_range

Word = str | tuple[int, ...]
"""A text, or the token ids that it consists of."""

Amount = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
PositiveShare = Annotated[float, Meta(gt=0, le=1)]
Cutoff = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=0)]
PositiveCount = Annotated[int, Meta(ge=1)]
LastN = Annotated[int, Meta(ge=-1)]
TokenId = Annotated[int, Meta(ge=0)]
Version = Annotated[int, Meta(ge=0, le=2)]
Decay = Annotated[float, Meta(ge=0, le=0.99)]
Growth = Annotated[float, Meta(ge=1)]
Profile = Literal["openai", "hf", "vllm", "llama.cpp"]
Mode = Literal["raw", "processed"]
BREAKERS = ("\n", ":", '"', "*")


def says(text: str) -> Meta:
    """What a parameter is, in a few words, for help texts and schemas."""
    return Meta(description=text)


class SamplingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of one request. Defaults are off, or the usual for those that only say more of others.

    `profile` says in which order the others are applied, and to what text. Generation ends at one of the
    model's own end tokens (unless `ignore_eos`), at one of `stop_token_ids`, before one of the strings of
    `stop`, or after `max_tokens` tokens. Raises RequestError when a value is of the wrong type, out of its
    range, or without meaning beside the others.
    """

    profile: Annotated[Profile, says("whose order, scope and ties")] = "openai"
    seed: Annotated[int | None, says("makes a sampled answer repeatable")] = None

    temperature: Annotated[Amount, says("0 takes the likeliest token, more is freer")] = 0.0
    dynatemp_range: Annotated[Amount, says("the temperature varies by so much, with the entropy")] = 0.0
    dynatemp_exponent: Annotated[Positive, says("how it follows the entropy")] = 1.0
    top_k: Annotated[Count, says("only the N likeliest tokens")] = 0
    top_p: Annotated[PositiveShare, says("only the likeliest tokens, that hold so much of all")] = 1.0
    min_p: Annotated[Share, says("only tokens at least so many times as likely as the likeliest")] = 0.0
    typical_p: Annotated[PositiveShare, says("only the most typical tokens, that hold so much")] = 1.0
    top_n_sigma: Annotated[Amount, says("only logits within N deviations of the largest")] = 0.0
    epsilon_cutoff: Annotated[Cutoff, says("only tokens at least so likely")] = 0.0
    eta_cutoff: Annotated[Cutoff, says("the same, with less when much is possible")] = 0.0
    top_h: Annotated[PositiveShare, says("only the likeliest tokens, with so much of the entropy")] = 1.0
    xtc_probability: Annotated[Share, says("XTC: how often the top choices are dropped")] = 0.0
    xtc_threshold: Annotated[PositiveShare, says("XTC: how likely a top choice is")] = 0.1
    mirostat: Annotated[Version, says("version of Mirostat, which takes the place of truncations")] = 0
    mirostat_tau: Annotated[Positive, says("Mirostat: the surprise to hold, in bits")] = 5.0
    mirostat_eta: Annotated[PositiveShare, says("Mirostat: how fast it learns")] = 0.1
    adaptive_target: Annotated[Share | None, says("Adaptive-P: the probability to aim at")] = None
    adaptive_decay: Annotated[Decay, says("Adaptive-P: how much it remembers")] = 0.9

    repetition_penalty: Annotated[Positive, says("above 1 discourages tokens seen")] = 1.0
    presence_penalty: Annotated[float, says("taken from the logits of tokens seen")] = 0.0
    frequency_penalty: Annotated[float, says("the same, as often as they were seen")] = 0.0
    repeat_last_n: Annotated[LastN | None, says("how many tokens these three look at; -1 is all")] = None
    no_repeat_ngram_size: Annotated[Count, says("no N tokens in a row twice")] = 0
    dry_multiplier: Annotated[Amount, says("DRY: the penalty of the shortest repeat")] = 0.0
    dry_base: Annotated[Growth, says("DRY: its growth with each further token")] = 1.75
    dry_allowed_length: Annotated[PositiveCount, says("DRY: the tokens of the shortest repeat")] = 2
    dry_penalty_last_n: Annotated[LastN | None, says("DRY: how many tokens it looks at; -1 is all")] = None
    dry_sequence_breakers: Annotated[tuple[Word, ...], says("DRY: what no repeat goes across")] = BREAKERS
    exponential_decay_length_penalty: Annotated[
        tuple[Count, Positive] | None, says("[N, X]: after N tokens an end is X times likelier at each")
    ] = None

    logit_bias: Annotated[dict[TokenId, float], says("added to the logits of token ids")] = {}
    bad_words: Annotated[tuple[Word, ...], says("texts, or token ids, that never come")] = ()
    suppress_tokens: Annotated[tuple[TokenId, ...], says("token ids that never come")] = ()
    begin_suppress_tokens: Annotated[tuple[TokenId, ...], says("token ids that never come first")] = ()
    allowed_token_ids: Annotated[tuple[TokenId, ...], says("the only token ids that ever come")] = ()
    forced_bos_token_id: Annotated[TokenId | None, says("the token id that comes first")] = None

    max_tokens: Annotated[PositiveCount | None, says("the most tokens of the answer")] = None
    min_tokens: Annotated[Count, says("the fewest tokens of the answer")] = 0
    stop: Annotated[tuple[str, ...], says("texts before which to end")] = ()
    stop_token_ids: Annotated[tuple[int, ...], says("token ids at which to end")] = ()
    ignore_eos: Annotated[bool, says("go on after the model's own end")] = False

    logprobs: Annotated[Count | None, says("tell ln p of each token, and of N others")] = None
    logprobs_mode: Annotated[Mode, says("as the model has it, or as it was drawn")] = "raw"
    prompt_logprobs: Annotated[Count | None, says("the same of the prompt, as the model has it")] = None

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if value is not field.default:
                msgspec.structs.force_setattr(self, field.name, checked(field.name, value, field.type))
        for name in ("stop", "bad_words", "dry_sequence_breakers"):
            if not all(getattr(self, name)):
                raise out_of_range(name, getattr(self, name), "without empty texts")
        for name in ("repeat_last_n", "dry_penalty_last_n"):
            if getattr(self, name) == 0:
                raise out_of_range(name, 0, "-1 (all) or at least 1")
        self._check_company()

    def _check_company(self) -> None:
        """Refuse what means nothing beside, or without, what else is given."""
        for name, masters in PARTS.items():
            if is_given(self, name) and not any(is_given(self, master) for master in masters):
                raise RequestError(
                    f"{name}={getattr(self, name)!r} only says more of {' or '.join(masters)}, which is off"
                )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(f"min_tokens={self.min_tokens} is above max_tokens={self.max_tokens}")
        if self.exponential_decay_length_penalty and self.ignore_eos:
            raise RequestError(
                "exponential_decay_length_penalty makes the model's own end likelier, and ignore_eos ignores"
                " it; leave one of them out"
            )


PARTS = {
    "dynatemp_exponent": ("dynatemp_range",),
    "xtc_threshold": ("xtc_probability",),
    "mirostat_tau": ("mirostat",),
    "mirostat_eta": ("mirostat",),
    "adaptive_decay": ("adaptive_target",),
    "repeat_last_n": ("repetition_penalty", "presence_penalty", "frequency_penalty"),
    "dry_base": ("dry_multiplier",),
    "dry_allowed_length": ("dry_multiplier",),
    "dry_penalty_last_n": ("dry_multiplier",),
    "dry_sequence_breakers": ("dry_multiplier",),
    "logprobs_mode": ("logprobs",),
}
"""Parameters that only say more of others, one of which has to be on."""


def is_given(params: SamplingParams, name: str) -> bool:
    """Whether a parameter is other than its default, which is off, or for a part of others the usual."""
    return bool(getattr(params, name) != _DEFAULTS[name])


_DEFAULTS = {
    field.name: {} if field.default is msgspec.NODEFAULT else field.default
    for field in msgspec.structs.fields(SamplingParams)
}


FOR_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "top_h",
)

FOR_ANY_DECODING = (
    *("repetition_penalty", "no_repeat_ngram_size", "exponential_decay_length_penalty"),
    *("suppress_tokens", "begin_suppress_tokens"),
)

FOLLOWED = {
    **{name: name for name in (*FOR_SAMPLING, *FOR_ANY_DECODING)},
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "bad_words_ids": "bad_words",
}
"""Settings of a generation config, and what they are called here."""

WITHOUT_EFFECT = {
    *("do_sample", "bos_token_id", "eos_token_id", "pad_token_id"),  # heeded elsewhere
    *("transformers_version", "_from_model_config", "use_cache", "cache_implementation"),
    *("return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores"),
}

OFF_AT_ONE = {
    *("num_beams", "num_beam_groups", "num_return_sequences", "length_penalty"),
    *("encoder_repetition_penalty", "guidance_scale"),
}
"""Settings that change nothing when they are 1. Others change nothing when they are 0, false or empty."""


def model_defaults(generation: Mapping[str, Any], context: int) -> tuple[SamplingParams, dict[str, Any]]:
    """A model's own defaults, from its generation config, and what in that is not followed.

    As in Hugging Face's `generate`, a model is sampled from only if `do_sample` says so; what is left out is
    off. Not followed is what is unknown here or out of range, and would change something. `context` is the
    most positions that the model holds.
    """
    sampled = generation.get("do_sample") is True
    params = SamplingParams(temperature=1.0 if sampled else 0.0)
    ignored = {}
    for name, value in generation.items():
        if name in WITHOUT_EFFECT or _is_off(name, value, context) or (name in FOR_SAMPLING and not sampled):
            continue
        try:
            params = msgspec.structs.replace(params, **{FOLLOWED[name]: value})
        except (KeyError, RequestError):
            ignored[name] = value
    return params, ignored


def _is_off(name: str, value: Any, context: int) -> bool:
    if name == "max_length":  # of prompt and answer together
        return isinstance(value, int) and value >= context
    if name in FOLLOWED:
        return value is None
    return not value or (name in OFF_AT_ONE and value == 1)


def noting(params: SamplingParams) -> SamplingParams:
    """The parameters, with log probabilities asked for."""
    return params if params.logprobs is not None else msgspec.structs.replace(params, logprobs=0)
