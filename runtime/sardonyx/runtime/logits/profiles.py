"""Profiles: in which order the steps are taken, what the penalties look back on, and what becomes of ties.

No two systems agree on these, so the same parameters mean other distributions in each. A profile is one
system's answer, by name:

    openai      everything there is. OpenAI's definitions of presence and frequency (the answer alone counts),
                the papers' of everything else; the temperature comes before the truncations
    hf          transformers' `generate`
    vllm        vLLM's V1 sampler
    llama.cpp   llama.cpp's default chain: penalties see the last 64 tokens, prompt included, and the
                temperature comes last

An option that a profile's system does not have is refused. `tests/runtime/conformance` holds distributions of
each, computed from the definitions.
"""

from dataclasses import dataclass

from sardonyx.runtime.logits.feedback import Surprise
from sardonyx.runtime.logits.truncation import Ties

PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True)
class Profile:
    """One system's answer. Steps are named after the parameters that switch them on."""

    name: str
    order: tuple[str, ...]
    of_answer: frozenset[str] = frozenset({"frequency_penalty", "presence_penalty"})
    """Steps that do not see the prompt."""
    takes: frozenset[str] = frozenset({"repeat_last_n", "dynatemp_range"})
    """Parameters that are no steps of their own, and not in every system."""
    last_n: int | None = None
    """How many tokens penalties and DRY look back on unless told otherwise. None: all."""
    ties: Ties = "lowest"
    """In top_k, and in typical_p."""
    top_h_of_hundred: bool = False
    surprise: Surprise = "full"
    """What mirostat measures."""
    mirostat_alone: bool = False
    """Whether nothing but logit bias and temperature goes before mirostat."""


OPENAI = Profile(
    "openai",
    (
        *("logit_bias", *PENALTIES, "dry_multiplier", "no_repeat_ngram_size", "bad_words", "min_tokens"),
        *(
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
            "allowed_token_ids",
        ),
        *(
            "forced_bos_token_id",
            "temperature",
            "top_n_sigma",
            "top_h",
            "top_k",
            "top_p",
            "min_p",
            "typical_p",
        ),
        *("epsilon_cutoff", "eta_cutoff", "xtc_probability", "adaptive_target", "mirostat"),
    ),
)

HF = Profile(
    "hf",
    (
        *("logit_bias", "repetition_penalty", "no_repeat_ngram_size", "bad_words", "min_tokens"),
        *("allowed_token_ids", "forced_bos_token_id", "exponential_decay_length_penalty", "suppress_tokens"),
        *("begin_suppress_tokens", "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p"),
        *("epsilon_cutoff", "eta_cutoff"),
    ),
    takes=frozenset(),
    ties="all",
    top_h_of_hundred=True,
)

VLLM = Profile(
    "vllm",
    (
        *("allowed_token_ids", "bad_words", "min_tokens", "logit_bias", *PENALTIES),
        *("temperature", "min_p", "top_k", "top_p"),
    ),
    of_answer=frozenset({"frequency_penalty", "presence_penalty", "bad_words"}),
    takes=frozenset(),
    ties="all",
)

LLAMA_CPP = Profile(
    "llama.cpp",
    (
        *("logit_bias", *PENALTIES, "dry_multiplier", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p"),
        *("xtc_probability", "temperature", "adaptive_target", "mirostat"),
    ),
    of_answer=frozenset(),
    last_n=64,
    surprise="kept",
    mirostat_alone=True,
)

PROFILES = {profile.name: profile for profile in (OPENAI, HF, VLLM, LLAMA_CPP)}
