"""Exports in processes of their own, to be killed; forked from one that has imported all, to be quick."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from sardonyx.export.api import Options, export

START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["sardonyx.export.api", "sardonyx.export.checkpoint.huggingface"])

Job = tuple[Path, Path, str]
"""Source, out, recipe."""


def start(job: Job, die_at: int | None = None) -> ForkServerProcess:
    """Begin an export that replaces what is there; `die_at` is the step at which it kills itself."""
    process = START.Process(target=_export, args=(job, die_at))
    process.start()
    return process


def steps(job: Job) -> int:
    """How many steps an export takes: calls that touch the file system."""
    receiver, sender = START.Pipe(duplex=False)
    process = START.Process(target=_export, args=(job, None, sender))
    process.start()
    count: int = receiver.recv()
    process.join()
    return count


def _export(job: Job, die_at: int | None, sender: object = None) -> None:
    source, out, recipe = job
    count = 0

    def step(event: str, arguments: object) -> None:
        nonlocal count
        if event == "open" or event.startswith(("os.", "shutil.", "ctypes.dlsym")):
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    export(source, out, recipe=recipe, options=Options(force=True, verify=False, calibrate=False))
    if sender is not None:
        sender.send(count)  # type: ignore[attr-defined]
