"""The worked example for GitHub Actions works: its steps are run here, on a tiny model."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import yaml

from command_line import environment
from random_models import random_checkpoint, save_folder
from sardonyx.export.certificate import encode, read_certificate, seal
from sardonyx.models import architectures

EXAMPLE = Path(__file__).parent.parent / "examples" / "ci" / "github-actions.yml"
WORKFLOW: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text("utf-8"))
STEPS: dict[str, str] = {
    step["name"]: step["run"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "run" in step
}

INSTALL, EXPORT, GATE = STEPS

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the runner's shell is bash")


def run_step(name: str, checkout: Path, **changes: str) -> int:
    """The exit code of a step, run as the runner does."""
    variables = environment(**{**WORKFLOW["env"], "SOURCE": "model/source", **changes})
    variables["PATH"] = f"{checkout / 'bin'}:{variables['PATH']}"
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]]
    return subprocess.run(shell, cwd=checkout, env=variables, capture_output=True).returncode


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after its export, whose certificate is the baseline as well."""
    root = tmp_path_factory.mktemp("checkout")
    save_folder(random_checkpoint(architectures()["llama"].EXAMPLE), root / "model" / "source")
    program = root / "bin" / "sardonyx"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom sardonyx.runtime.cli import main\nmain()\n")
    program.chmod(0o755)
    assert run_step(EXPORT, root) == 0
    shutil.copy(root / "artifact" / "certificate.json", root / WORKFLOW["env"]["BASELINE"])
    return root


@pytest.fixture
def checkout(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "checkout")


def test_the_example_installs_what_it_uses() -> None:
    assert STEPS[INSTALL] == "pip install 'sardonyx[export]'"


def test_a_model_as_good_as_its_baseline_passes(checkout: Path) -> None:
    assert run_step(GATE, checkout) == 0
    report = ElementTree.parse(checkout / "report.xml").getroot()
    assert (report.get("failures"), report.tag) == ("0", "testsuites")
    assert int(report.get("tests", "0")) == len(list(report.iter("testcase"))) > 10


def test_a_model_worse_than_its_baseline_does_not(checkout: Path) -> None:
    path = checkout / WORKFLOW["env"]["BASELINE"]
    baseline = read_certificate(path)
    better = msgspec.structs.replace(baseline.overall, kl_mean=1e-6)
    path.write_bytes(encode(seal(msgspec.structs.replace(baseline, overall=better))))
    assert run_step(GATE, checkout) == 1
    (failure,) = ElementTree.parse(checkout / "report.xml").getroot().iter("failure")
    assert failure.get("message", "").startswith("measured 0.0")


def test_a_budget_that_is_too_small_does_not(checkout: Path) -> None:
    assert run_step(GATE, checkout, MAX_KL="0.000001") == 1


def test_what_cannot_be_read_is_no_verdict(checkout: Path) -> None:
    assert run_step(EXPORT, checkout, SOURCE="model/nothing") == 2
    assert run_step(GATE, checkout, BASELINE="model/nothing.json") == 2
