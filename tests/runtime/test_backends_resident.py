"""States on a device: the same numbers as at home, and no copies but where the arena looks at bytes.

The device is memory of the CPU's beside the arena; `tests/gpu` has real ones.
"""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign_graphs import Graph, write_settings
from random_models import export_random
from sardonyx.models import architectures
from sardonyx.runtime.backends import masked, resident
from sardonyx.runtime.backends import ort as backend
from sardonyx.runtime.backends.resident import Device
from sardonyx.runtime.loading import load_parts
from sardonyx.runtime.model import Model, Step

TOKENS = np.random.default_rng(3).integers(1, 96, 400).tolist()


def memory(place: Any) -> Device:
    def take(value: Any, array: Any) -> None:
        array[...] = value.numpy()

    return Device(
        lambda shape, dtype: ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype),
        lambda array, value: value.update_inplace(array),
        take,
    )


@pytest.fixture(scope="module", params=["llama", "lfm2", "theirs"])
def programs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any, Any]:
    """A manifest, a program with its states at home, and one with its states away."""
    folder = tmp_path_factory.mktemp("resident") / "model"
    if request.param == "theirs":
        Graph(in_place=True).write(write_settings(folder) / "model.onnx")
    else:
        export_random(architectures()[request.param].EXAMPLE, folder)
    home = load_parts(folder, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "device", memory)
        patch.setattr(masked, "device", memory)
        away = load_parts(folder, 1)
    return home.manifest, home.program, away.program


def of(program: Any) -> resident.Resident:
    found = getattr(program, "resident", None) or program._cache._resident
    assert isinstance(found, resident.Resident)
    return found


def test_steps_copy_nothing(programs: tuple[Any, Any, Any]) -> None:
    manifest, _, away = programs
    model, states = Model(manifest, away), of(away)
    row = model.arena.row()
    before = states.copies
    model.forward([Step(row, TOKENS[:20])])
    there = before + len(manifest.states)
    assert states.copies == there  # once
    for token in TOKENS[20:28]:
        model.forward([Step(row, [token])])
    assert states.copies == there
    model.arena.trim(row, 25)
    model.forward([Step(row, TOKENS[25:30])])
    back = (
        there if model.arena.holds_all else there + 2 * len(manifest.states)
    )  # windows are set back at home
    assert states.copies == back
    model.arena.fork(row, 30)  # for which all comes home, once
    assert states.copies == back + len(manifest.states)


@settings(max_examples=25)
@given(data=st.data())
def test_numbers_are_those_of_states_at_home(programs: tuple[Any, Any, Any], data: st.DataObject) -> None:
    """Whatever becomes of rows: grown, trimmed, forked, put in another order, released, begun anew, and put
    together from what was read."""
    manifest, *both = programs
    models = [Model(manifest, program) for program in both]
    rows: list[list[Any]] = [[model.arena.row()] for model in models]
    fed = [0]
    for _ in range(data.draw(st.integers(2, 8))):
        what = data.draw(
            st.sampled_from(["step", "step", "prompt", "trim", "fork", "order", "leave", "read"])
        )
        which = data.draw(st.integers(0, len(fed) - 1))
        if what in ("step", "prompt"):
            count = 1 if what == "step" else data.draw(st.integers(2, 6))
            some = range(len(fed)) if what == "step" else [which]
            made = [
                model.forward([Step(own[i], TOKENS[fed[i] : fed[i] + count], wanted=count) for i in some])
                for model, own in zip(models, rows, strict=True)
            ]
            for one, other in zip(*made, strict=True):
                np.testing.assert_array_equal(one, other)
            for i in some:
                fed[i] += count
        elif what == "trim" and fed[which] > 1:
            for model, own in zip(models, rows, strict=True):
                model.arena.trim(own[which], fed[which] - 1)
            fed[which] = rows[0][which].length
        elif what == "fork":
            for model, own in zip(models, rows, strict=True):
                own.append(model.arena.fork(own[which], fed[which]))
            fed.append(fed[which])
        elif what == "order":
            kept = [(i, fed[i]) for i in data.draw(st.permutations(range(len(fed))))]
            rows = [model.arena.keep(own, kept) for model, own in zip(models, rows, strict=True)]
            fed = [length for _, length in kept]
        elif what == "leave" and len(fed) > 1:
            for model, own in zip(models, rows, strict=True):
                model.arena.release(own.pop(which))
            fed.pop(which)
        elif what == "read" and fed[which] > 1 and models[0].arena.holds_all:
            for model, own in zip(models, rows, strict=True):
                part = model.arena.read(own[which], 0, fed[which])
                own.append(model.arena.row())
                model.arena.append(own[-1], [part])
            fed.append(fed[which])
