"""Which machine this is, as far as it bears on what kernels compute."""

import platform
from importlib.metadata import version

import onnxruntime

from sardonyx.export.certificate import Machine
from sardonyx.runtime.hardware import cpu_name
from sardonyx.runtime.threads import usable_cores


def this_machine(provider: str) -> Machine:
    """Processor, system, threads and the versions of what computes."""
    return Machine(
        processor=cpu_name() or platform.processor() or platform.machine(),
        system=f"{platform.system()} {platform.machine()}",
        threads=usable_cores(),
        provider=provider,
        onnxruntime=onnxruntime.__version__,  # whichever package it is of
        numpy=version("numpy"),
        python=platform.python_version(),
    )
