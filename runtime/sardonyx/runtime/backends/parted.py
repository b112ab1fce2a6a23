"""A program whose provider takes less at once than the CPU does: each batch is cut into what is right there.

It knows arrays and rules; what is behind it runs as if it had been asked for so little.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.backends.base import Batch, CacheView, Output, Program
from sardonyx.runtime.backends.passes import Pass, Rules, passes, share

Indices = NDArray[np.intp]


class PartedProgram:
    """Runs another program, in as many passes as the rules ask for."""

    def __init__(
        self, program: Program, rules: Rules, failed: Callable[[Exception], Exception] = lambda error: error
    ) -> None:
        """`failed` makes of what is raised in a pass what to say of it."""
        self._program = program
        self._rules = rules
        self._failed = failed
        self.longest_run = program.longest_run

    @property
    def run_s(self) -> float:
        return self._program.run_s

    @run_s.setter
    def run_s(self, seconds: float) -> None:
        self._program.run_s = seconds

    def run(self, batch: Batch, cache: CacheView) -> Output:
        parts: list[tuple[Indices, Output]] = []
        for one in passes(batch, self._rules):
            part, asked = _part(batch, one)
            try:
                made = self._program.run(part, _rows(cache, one.rows))
            except Exception as error:
                if (told := self._failed(error)) is error:
                    raise
                raise told from error
            parts.append((asked, made))
        order = np.argsort(np.concatenate([asked for asked, _ in parts]), kind="stable")
        return Output(
            *(np.concatenate(arrays)[order] for arrays in zip(*(made for _, made in parts), strict=True))
        )


def _part(batch: Batch, one: Pass) -> tuple[Batch, Indices]:
    """What a pass gets, and which of the batch's `logit_rows` it answers."""
    its = share(batch, one)
    part = Batch(
        np.ascontiguousarray(batch.ids[one.rows, one.first : one.first + one.width]),
        its.counts,
        its.past + its.counts,
        its.rows * one.width + its.columns,
        batch.adapters[one.rows],
    )
    return part, its.asked


def _rows(cache: CacheView, rows: slice) -> CacheView:
    start = cache.rows[0]
    return CacheView(
        [tensor[rows] for tensor in cache.tensors], cache.memory, (start + rows.start, start + rows.stop)
    )
