"""What each step of quantization brings: one step more with each row, by the certificate's arithmetic.

    python bench/recipes.py SOURCE [ROW ...]

Each row is exported in a process of its own, so that its seconds and its peak of memory are its own; then all
are measured against one float32 reference on the project's own texts, which no calibration sees.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sardonyx.export import rounding
from sardonyx.export.build import build
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.export.divergence import concatenated, summary
from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.recipes import RECIPES, TABLES, Recipe
from sardonyx.export.reference import reference_of
from sardonyx.export.texts import own_texts
from sardonyx.export.verify import diverge
from sardonyx.runtime.llm import LLM, MAPPED

EIGHT = tuple((table, NBits(8)) for table in TABLES)


@dataclass(frozen=True)
class Row:
    """A recipe, and how often `rounding` descends."""

    recipe: Recipe
    sweeps: int = rounding.SWEEPS


NEAREST = Recipe("nearest", "", (*EIGHT, ("*", NBits(4, to_nearest=True))))
FOUR = Recipe("four", "", (*EIGHT, ("*", NBits(4))))
EVERYTHING = Recipe("everything", "", (("*", NBits(4)),))

ROWS: Mapping[str, Row] = {
    "4 bits, each weight to its nearest code; tables in 8": Row(NEAREST),
    "+ scales searched": Row(Recipe("searched", "", FOUR.rules, calibrate=False)),
    "+ errors compensated": Row(FOUR, sweeps=0),
    "+ descended": Row(FOUR),
    "+ tables in 4 bits, too": Row(EVERYTHING),
    "+ queries to values in 8 bits: `int4-small`": Row(RECIPES["int4-small"]),
    "+ tables and what leaves the MLP in 8 bits: `int4`": Row(RECIPES["int4"]),
    "8-bit weights and activations, a scale for each token": Row(replace(RECIPES["int8"], calibrate=False)),
    "+ smoothed, a scale for all tokens where that does no harm: `int8`": Row(RECIPES["int8"]),
    "`q8`": Row(RECIPES["q8"]),
}


def main(source: Path, names: list[str]) -> None:
    """Print the table, a line as soon as it is known."""
    columns = ("step", "MB", "mean KL", "p99", "top-1", "perplexity", "CPU s", "wall s", "peak MB")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with reference_of(open_checkpoint(source), None, context=8192) as folder:
        reference = LLM.load(folder, place=MAPPED)
        for name in names or ROWS:
            with tempfile.TemporaryDirectory() as made:
                command = [sys.executable, __file__, "--make", name, str(source), made]
                cost = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                print(line(name, Path(made), reference, cost), flush=True)


def line(name: str, folder: Path, reference: LLM, cost: Mapping[str, float]) -> str:
    candidate = LLM.load(folder)
    texts = own_texts(candidate)
    found = summary(concatenated(list(diverge(reference, candidate, texts).values())), texts.count)
    megabytes = sum(path.stat().st_size for path in folder.glob("model.onnx*")) / 1e6
    return (
        f"| {name} | {megabytes:.1f} | {found.kl_mean:.4f} | {found.kl_p99:.2f} | {found.top1:.1%} "
        f"| x{found.perplexity_ratio:.3f} | {cost['cpu']:.0f} | {cost['wall']:.0f} "
        f"| {cost['peak'] / 1e6:.0f} |"
    )


def make(name: str, source: Path, folder: Path) -> None:
    """Export one row; print what it cost."""
    import re
    import time

    rounding.SWEEPS = ROWS[name].sweeps
    wall, cpu = time.perf_counter(), time.process_time()
    build(folder, open_checkpoint(source), ROWS[name].recipe, context=8192)
    status = Path("/proc/self/status").read_text()  # Linux; ru_maxrss would start from the parent's peak
    peak = int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024
    cost = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak}
    print(json.dumps(cost))


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
