"""The tensors that a graph asks for: looked up, counted, stacked. Knows neither formats nor graphs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Checkpoint, Float32, LazyTensor
from sardonyx.models.graph import Weight
from sardonyx.runtime.errors import SourceError

CHUNK_ELEMENTS = 1 << 18
"""Elements read, quantized and written at a time: 1 MiB as float32, which stays in a core's cache."""

LISTED = 12
"""Tensor names that an error spells out before it counts the rest."""

OnRead = Callable[[Float32, str], None]
"""Shown every element that is read, once, with the name of its tensor."""

Moment = Sequence[Float32]
"""Mean of `x x^T` over the x that a matrix was seen to multiply: squares along the diagonal, which cover all
inputs. What is left out between the squares was not measured.
"""

Measured = Callable[[Weight], Moment | None]
"""The moment of what a weight multiplies, while it is known."""


@dataclass(frozen=True)
class Sample:
    """What a matrix was seen to multiply."""

    rows: Float32
    """Some of it, `[tokens, inputs]`."""
    largest: Float32
    """Of each input the largest magnitude of all that was seen, `[inputs]`."""


Sampled = Callable[[Weight], Sample | None]
"""A sample of what a weight multiplies, while it is known."""


def unseen(values: Float32, name: str) -> None:
    """Nobody looks."""


def unmeasured(weight: Weight) -> None:
    """Nothing is known."""


@dataclass(frozen=True)
class Matrix:
    """Checkpoint matrices stacked along their first axis, still on disk; shape `[outputs, inputs]`."""

    parts: tuple[tuple[Weight, LazyTensor], ...]
    on_read: OnRead = unseen
    measured: Measured = unmeasured
    sampled: Sampled = unmeasured
    factors: Float32 | None = None
    """Of each column, `[inputs]`, by which it is multiplied; what the matrix multiplies was divided by it."""

    @property
    def name(self) -> str:
        """The weight's name; for a stack, of its parts: `...self_attn.q_proj+k_proj+v_proj.weight`."""
        stems = [weight.name.removesuffix(".weight") for weight, _ in self.parts]
        parent = stems[0].rpartition(".")[0]
        return f"{parent}.{'+'.join(stem.rpartition('.')[2] for stem in stems)}.weight"

    @property
    def shape(self) -> tuple[int, int]:
        return sum(weight.shape[0] for weight, _ in self.parts), self.parts[0][0].shape[1]

    @property
    def moment(self) -> Moment | None:
        """Of what this matrix multiplies, if it was measured and is still known."""
        return self.measured(self.parts[0][0])

    @property
    def sample(self) -> Sample | None:
        """Of what this matrix multiplies, factors left aside, if it was seen and is still known."""
        return self.sampled(self.parts[0][0])

    def chunks(self, columns: slice = slice(None), elements: int | None = None) -> Iterator[Float32]:
        """All rows in order, as float32 `[some, columns]`, at most so many elements of them at a time."""
        for name, tensor, start, stop in self._pieces(elements or CHUNK_ELEMENTS):
            rows = tensor.rows(start, stop)[:, columns]
            self.on_read(rows, name)
            yield rows if self.factors is None else rows * self.factors[columns]

    def raw_chunks(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """The same pieces as they are stored, `[some, bytes]`, and whose they are; `on_read` sees nothing."""
        for name, tensor, start, stop in self._pieces(CHUNK_ELEMENTS):
            yield name, tensor.raw(start, stop)

    def _pieces(self, elements: int) -> Iterator[tuple[str, LazyTensor, int, int]]:
        for weight, tensor in self.parts:
            outputs, inputs = weight.shape
            step = max(1, elements // inputs)
            for start in range(0, outputs, step):
                yield weight.name, tensor, start, min(start + step, outputs)


def check_weights(checkpoint: Checkpoint, wanted: Mapping[str, Weight], *, tied: bool) -> None:
    """Hold a checkpoint against its description. Raises SourceError listing every difference at once."""
    names = checkpoint.names()
    missing = sorted(wanted.keys() - names)
    unused = sorted(name for name in names - wanted.keys() if not _expected_unused(name, tied=tied))
    misshaped = [
        f"{name} is {list(checkpoint.tensor(name).shape)}, the config says {list(weight.shape)}"
        for name, weight in sorted(wanted.items())
        if name in names and tuple(checkpoint.tensor(name).shape) != weight.shape
    ]
    faults = [
        *(
            f"{kind}: {listed(found)}"
            for kind, found in (("missing", missing), ("not used", unused))
            if found
        ),
        *(f"of another shape: {listed(misshaped)}" for _ in misshaped[:1]),
    ]
    if faults:
        raise SourceError(f"{checkpoint.path}: its tensors do not fit its config; " + "; ".join(faults))


def check_finite(checkpoint: Checkpoint, values: Float32, name: str) -> None:
    """Raises SourceError when there is a number among the values of this tensor that is none."""
    if not np.isfinite(values).all():
        raise SourceError(
            f"{checkpoint.path}: tensor {name} holds NaN or infinity; get the file again, or the model in "
            "another float type"
        )


def _expected_unused(name: str, *, tied: bool) -> bool:
    """What checkpoints carry without effect: rotary tables, which are computed, and a tied head's copy."""
    return name.endswith(".rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def listed(names: list[str]) -> str:
    shown = ", ".join(names[:LISTED])
    return shown if len(names) <= LISTED else f"{shown} and {len(names) - LISTED} more"
