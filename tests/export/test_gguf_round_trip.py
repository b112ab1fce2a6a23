"""The same random weights through a GGUF file and as they are give the same artifact, to the byte."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gguf_models import ARCHITECTURES, config_of, write_model
from random_models import UNMEASURED, ArrayCheckpoint, random_checkpoint
from sardonyx.export.api import export
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.models import describe


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_gguf_file_is_the_model_that_it_was_made_of(model_type: str, tmp_path: Path) -> None:
    expected = random_checkpoint(config_of(model_type))
    read = open_checkpoint(write_model(tmp_path / "x.gguf", expected))
    assert describe(read.config) == describe(expected.config)
    assert read.names() == expected.names()
    arrays = {name: read.tensor(name).rows(0, read.tensor(name).shape[0]) for name in read.names()}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected.arrays[name], err_msg=name)
    for place, checkpoint in (("direct", expected), ("read", ArrayCheckpoint(read.config, arrays))):
        export(replace(checkpoint, name=model_type), tmp_path / place, recipe="fp32", options=UNMEASURED)
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "direct" / name).read_bytes() == (tmp_path / "read" / name).read_bytes()
