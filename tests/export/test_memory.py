"""Weights stream: an export needs memory for pieces of a model, however large the model is."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sardonyx.models import architectures
from sparse_models import sparse_folder

WIDE = {
    **architectures()["llama"].EXAMPLE,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
}
"""Llama 3.2 1B but for its depth: half a gigabyte of vocabulary, and 0.12 GB for each layer."""

EXPORT = """
import re, resource, sys
from pathlib import Path
from sardonyx.export.api import Options, export

source, out, recipe, calibrate = sys.argv[1:]
options = Options(verify=False, calibrate=calibrate == "calibrated")
export(Path(source), Path(out), recipe=recipe, options=options)
status = Path("/proc/self/status")  # on Linux, ru_maxrss starts from the peak of the parent
if status.exists():
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak_bytes(
    config: dict[str, Any], recipe: str, folder: Path, calibrate: str = "as it is"
) -> tuple[int, int]:
    """Bytes of a made-up model's weights, and the most memory that exporting it ever took."""
    source_bytes = sparse_folder(config, folder / "source")
    command = [sys.executable, "-c", EXPORT, folder / "source", folder / "out", recipe, calibrate]
    process = subprocess.run(command, capture_output=True, text=True)
    assert not process.returncode, process.stderr
    (folder / "out" / "model.onnx.data").unlink()
    return source_bytes, int(process.stdout)


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_a_model_of_one_gigabyte_takes_a_quarter(recipe: str, tmp_path: Path) -> None:
    source, peak = peak_bytes({**WIDE, "num_hidden_layers": 4}, recipe, tmp_path)
    print(f"\n{recipe}: {source / 1e9:.2f} GB in float16 exported within {peak / 1e6:.0f} MB")
    assert source > 1e9
    assert peak < 250e6


@pytest.mark.parity  # not for torch, but for the time that it takes
@pytest.mark.parametrize(
    ("recipe", "layers", "least"), [("int8", 25, 4e9), ("int4", 25, 4e9), ("fp32", 2, 1.2e9)]
)
def test_a_model_of_four_gigabytes_takes_less_than_one(
    recipe: str, layers: int, least: float, tmp_path: Path
) -> None:
    """For float32 a smaller model: what could grow is its vocabulary's head, which is written transposed."""
    config = {**WIDE, "num_hidden_layers": layers, "tie_word_embeddings": False}
    source, peak = peak_bytes(config, recipe, tmp_path)
    print(f"\n{recipe}: {source / 1e9:.2f} GB in float16 exported within {peak / 1e6:.0f} MB")
    assert source > least
    assert peak < 1e9


@pytest.mark.parity
def test_calibration_takes_a_layer_and_no_more(tmp_path: Path) -> None:
    """Depth costs time but no memory: the third layer finds what the second had."""
    config = {**WIDE, "num_hidden_layers": 3, "vocab_size": 999}
    _, peak = peak_bytes(config, "int4", tmp_path, "calibrated")
    print(f"\nint4, calibrated: three layers of 0.24 GB in float32 within {peak / 1e6:.0f} MB")
    assert peak < 1e9
