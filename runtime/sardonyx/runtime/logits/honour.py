"""Whether a request can be honoured: by its profile, and beside what else it asks. If not, it is refused."""

from collections.abc import Iterator

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits.profiles import OPENAI, Profile
from sardonyx.runtime.logits.steps import FEEDBACK, OF_ANSWER, PROCESSORS, TRUNCATIONS, Setting, ids_of
from sardonyx.runtime.params import SamplingParams, is_given


def check_honoured(params: SamplingParams, setting: Setting, profile: Profile) -> None:
    """Raises RequestError naming the options that do not go together, and the way out."""
    for objections in (_unknown(params, profile), _undrawn(params, profile), _mirostat(params, profile)):
        for message in objections:
            raise RequestError(message)
    for message in (*_forced(params, setting), *_outside(params, setting), *_endless(params, setting)):
        raise RequestError(message)
    for name in profile.order:
        if setting.prompt_tokens is None and name in OF_ANSWER | profile.of_answer and is_given(params, name):
            raise ValueError(f"{name} has to know where the answer begins: give the Setting")


def _said(params: SamplingParams, name: str) -> str:
    return f"{name}={getattr(params, name)!r}"


def _unknown(params: SamplingParams, profile: Profile) -> Iterator[str]:
    for name in (*OPENAI.order, *OPENAI.takes):
        if is_given(params, name) and name not in profile.order and name not in profile.takes:
            yield f"profile={profile.name!r} has no {name}; leave {_said(params, name)} out, or the profile"


def _undrawn(params: SamplingParams, profile: Profile) -> Iterator[str]:
    """What has no effect where temperature 0 has left one token."""
    if params.temperature or params.dynatemp_range:
        return
    after = profile.order[profile.order.index("temperature") :]
    for name in ("xtc_probability", "mirostat", "adaptive_target"):
        if name in after and is_given(params, name):
            yield f"{_said(params, name)} has no effect at temperature=0, which takes the likeliest token"


def _mirostat(params: SamplingParams, profile: Profile) -> Iterator[str]:
    if not params.mirostat:
        return
    for name in ("dynatemp_range", *TRUNCATIONS, *FEEDBACK):
        if name != "mirostat" and is_given(params, name):
            off = getattr(SamplingParams(), name)
            yield f"mirostat={params.mirostat} takes the place of {_said(params, name)}; set {name}={off!r}"
    for name in PROCESSORS:
        if profile.mirostat_alone and name != "logit_bias" and is_given(params, name):
            yield f"profile={profile.name!r} has no {name} beside mirostat; leave {_said(params, name)} out"


def _forced(params: SamplingParams, setting: Setting) -> Iterator[str]:
    """The first token, which another option forbids."""
    token = params.forced_bos_token_id
    banned = {
        "suppress_tokens": token in params.suppress_tokens,
        "begin_suppress_tokens": token in params.begin_suppress_tokens,
        "bad_words": (token,) in params.bad_words,
        "allowed_token_ids": params.allowed_token_ids and token not in params.allowed_token_ids,
        "min_tokens": params.min_tokens and token in {*params.stop_token_ids, *setting.eos},
    }
    for name, forbidden in banned.items():
        if token is not None and forbidden:
            yield f"forced_bos_token_id={token} is forbidden by {_said(params, name)}"


def _outside(params: SamplingParams, setting: Setting) -> Iterator[str]:
    """Token ids that the model does not have, and more tokens than it has."""
    if setting.vocab_size is None:
        return
    for name in ("logprobs", "prompt_logprobs"):
        if (getattr(params, name) or 0) > setting.vocab_size:
            yield f"{_said(params, name)} is more than the vocabulary of {setting.vocab_size}"
    words = ids_of(params.bad_words)
    given = {
        "logit_bias": params.logit_bias,
        "bad_words": [token for word in words for token in word],
        "suppress_tokens": params.suppress_tokens,
        "begin_suppress_tokens": params.begin_suppress_tokens,
        "allowed_token_ids": params.allowed_token_ids,
        "forced_bos_token_id": [params.forced_bos_token_id or 0],
    }
    for name, ids in given.items():
        for token in ids:
            if not 0 <= token < setting.vocab_size:
                yield f"{name}: token {token} is outside the vocabulary of {setting.vocab_size}"


def _endless(params: SamplingParams, setting: Setting) -> Iterator[str]:
    if params.exponential_decay_length_penalty and not setting.eos:
        yield "exponential_decay_length_penalty: the model has no end token that it could make likelier"
