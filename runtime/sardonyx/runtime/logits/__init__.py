"""From a row of logits to a token: penalties, temperature, truncations, the draw. Pure arithmetic on arrays.

`make_picker` gives the rule by which one request picks its tokens, `pipeline` the distribution before the
draw. Each family of rules is a file; `profiles.py` says in which order they are taken, `pipeline.py` puts
them together. Nothing here knows of models, caches or text.
"""

from sardonyx.runtime.logits.candidates import Candidates, Processor, Row, Tokens, Transform
from sardonyx.runtime.logits.logprobs import Alternative, LogprobLog, TokenLogprobs
from sardonyx.runtime.logits.noise import draw, noise_key, uniform
from sardonyx.runtime.logits.pipeline import NoTokenError, Pick, Pipeline, make_picker, pipeline
from sardonyx.runtime.logits.steps import Setting

__all__ = [
    "Alternative",
    "Candidates",
    "LogprobLog",
    "NoTokenError",
    "Pick",
    "Pipeline",
    "Processor",
    "Row",
    "Setting",
    "TokenLogprobs",
    "Tokens",
    "Transform",
    "draw",
    "make_picker",
    "noise_key",
    "pipeline",
    "uniform",
]
