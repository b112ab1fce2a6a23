"""What a decoder graph takes and gives, found out from its inputs and outputs.

For graphs that this project did not write: they take an attention mask instead of lengths, and their states
are found by name. It knows names, types and shapes; how a graph is fed is the program's business.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import DType, State
from sardonyx.runtime.onnx_outline import Outline, Port
from sardonyx.runtime.slow_paths import WHOLE

IDS, MASK, POSITIONS, KEPT = "input_ids", "attention_mask", "position_ids", "num_logits_to_keep"
BRANCH = "use_cache_branch"
"""Of graphs that are two in one: whether to run the one that reads a past, or the one for beginnings."""

FED = (IDS, MASK, POSITIONS, KEPT, BRANCH)
LOGITS = "logits"
INTEGERS = ("int32", "int64")

PAST = re.compile(r"past(?:_key_values)?[._](.+)")
PRESENT = re.compile(r"present(?:_key_values)?[._](.+)")
"""A state goes in and comes out under the same name behind these."""

WITH_PAST = "decoder_with_past_model"
"""What optimum once called graphs that were traced for one token behind a past."""

IN_PLACE = "GroupQueryAttention"
"""The operator that writes new keys and values behind the old, where these lie."""


@dataclass(frozen=True)
class Signature:
    """How a graph wants to be fed.

    `states` of one row: `[heads, width]`. `in_place`: past and present share their memory; otherwise the
    graph puts a new state together from the past and the new tokens. `ragged`: rows may have pasts of
    different lengths. `mixing`: one row's numbers depend on the others in the pass. `behind`: so many tokens
    are right behind a past, where that is limited; `first`: and so many at the beginning.
    """

    inputs: dict[str, Port]
    logits: Port
    states: list[State]
    in_place: bool
    ragged: bool
    mixing: bool
    behind: int | None = None
    first: int | None = None

    @property
    def last_only(self) -> bool:
        """Whether logits come of the last token of a pass alone."""
        return self.logits.shape[1] == 1


def read_signature(path: Path, outline: Outline, widths: tuple[int, int] | None = None) -> Signature:
    """The signature of the graph in a file. `widths` are `[heads, width]` of a state, for where the graph
    leaves them open. Raises ArtifactError naming the input or output that is not understood.
    """
    ports = {port.name: port for port in outline.inputs}
    outputs = {port.name: port for port in outline.outputs}
    pasts = {name: _state_of(PAST, name) for name in ports}
    unknown = [name for name, state in pasts.items() if not state and name not in FED]
    if unknown:
        raise ArtifactError(
            f"{path}: takes {unknown[0]}, which nothing here feeds; "
            "export it as a decoder of text, with past and without branches"
        )
    if IDS not in ports:
        raise ArtifactError(f"{path}: takes no {IDS}, so it is no decoder of text")
    presents = {_state_of(PRESENT, name): port for name, port in outputs.items() if _state_of(PRESENT, name)}
    states = [
        _state(path, ports[name], presents.get(key), widths) for name, key in pasts.items() if key is not None
    ]
    if not states:
        raise ArtifactError(f"{path}: keeps no keys and values; export it with past")
    for name in (IDS, MASK, POSITIONS, KEPT):
        if name in ports and ports[name].dtype not in INTEGERS:
            raise ArtifactError(
                f"{path}: {name} is {ports[name].dtype}, expected one of {', '.join(INTEGERS)}"
            )
    if BRANCH in ports and ports[BRANCH].dtype != "bool":
        raise ArtifactError(f"{path}: {BRANCH} is {ports[BRANCH].dtype}, expected bool")
    logits = outputs.get(LOGITS)
    if logits is None or len(logits.shape) != 3 or logits.dtype not in ("float32", "float16"):
        raise ArtifactError(f"{path}: puts out no {LOGITS} [rows, tokens, vocabulary] as float32 or float16")
    kinds = {node.kind for node in outline.nodes}
    positioned = POSITIONS in ports or "CumSum" in kinds  # the mask is counted up to positions
    return Signature(
        inputs={name: ports[name] for name in FED if name in ports},
        logits=logits,
        states=states,
        in_place=_in_place(path, outline, states, masked=MASK in ports),
        ragged=MASK in ports and positioned,
        mixing=not kinds.isdisjoint(WHOLE),
        behind=1 if BRANCH in ports or path.name.startswith(WITH_PAST) else None,
        first=1 if path.name.startswith(WITH_PAST) else None,
    )


def _state_of(pattern: re.Pattern[str], name: str) -> str | None:
    found = pattern.fullmatch(name)
    return found[1] if found else None


def _state(path: Path, past: Port, present: Port | None, widths: tuple[int, int] | None) -> State:
    if present is None:
        raise ArtifactError(f"{path}: takes {past.name}, but puts out nothing to go there next")
    if len(past.shape) != 4 or past.dtype not in ("float32", "float16"):
        raise ArtifactError(
            f"{path}: {past.name} is {past.dtype} of {len(past.shape)} axes; keys and values should be "
            "float32 or float16 [rows, heads, tokens, width]"
        )
    sizes = [past.shape[axis] or present.shape[axis] for axis in (1, 3)]
    shape = [size or (widths or (0, 0))[place] for place, size in enumerate(sizes)]
    if not all(shape):
        raise ArtifactError(f"{path}: leaves the shape of {past.name} open, and nothing beside it says more")
    return State(past.name, present.name, "kv", shape, cast(DType, past.dtype))


def _in_place(path: Path, outline: Outline, states: list[State], *, masked: bool) -> bool:
    """Whether states are written in place: by all attention layers, or by none."""
    makers = {output: node.kind for node in outline.nodes for output in node.outputs}
    written = sum(makers.get(state.output) == IN_PLACE for state in states)
    if written not in (0, len(states)):
        raise ArtifactError(
            f"{path}: {written} of {len(states)} states are written by {IN_PLACE}, the others are put "
            "together; such a mixture cannot be fed"
        )
    if written and not masked:
        raise ArtifactError(f"{path}: takes no {MASK}, which tells {IN_PLACE} how long rows are")
    return written > 0
