"""Which machine this is, as far as it bears on what kernels compute."""

import platform
from importlib.metadata import version
from pathlib import Path

from sardonyx.export.certificate import Machine
from sardonyx.runtime.threads import usable_cores

PROVIDER = "CPUExecutionProvider"


def this_machine() -> Machine:
    """Processor, system, threads and the versions of what computes."""
    return Machine(
        processor=_processor(),
        system=f"{platform.system()} {platform.machine()}",
        threads=usable_cores(),
        provider=PROVIDER,
        onnxruntime=version("onnxruntime"),
        numpy=version("numpy"),
        python=platform.python_version(),
    )


def _processor() -> str:
    """The processor's name where Linux tells it; else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
