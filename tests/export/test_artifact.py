"""Where an artifact may be written, and what is said when it cannot be."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sardonyx.export.artifact import sources_hash, writing
from sardonyx.runtime.errors import OutputError, SardonyxError, SourceError
from sardonyx.runtime.manifest import MANIFEST_NAME


def write(out: Path, *, force: bool = False, text: str = "{}") -> None:
    with writing(out, force=force) as folder:
        (folder / MANIFEST_NAME).write_text(text)


def refusal(kind: type[SardonyxError], out: Path, *, force: bool = False) -> str:
    """The one line with which writing there is refused."""
    with pytest.raises(kind) as caught:
        write(out, force=force)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(out) in message
    return message


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Path]:
    """A folder in which no hidden file must be left."""
    yield tmp_path
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_an_existing_artifact_is_replaced_with_force_only(shelf: Path) -> None:
    write(shelf / "out", text="old")
    assert "--force" in refusal(OutputError, shelf / "out")
    assert (shelf / "out" / MANIFEST_NAME).read_text() == "old"
    write(shelf / "out", force=True, text="new")
    assert (shelf / "out" / MANIFEST_NAME).read_text() == "new"


@pytest.mark.parametrize("force", [True, False])
def test_what_is_not_an_artifact_is_never_replaced(shelf: Path, force: bool) -> None:
    (shelf / "folder").mkdir()
    (shelf / "folder" / "thesis.txt").write_text("years of work")
    (shelf / "file").write_text("years of work")
    for name in ("folder", "file"):
        assert ("not an artifact" in refusal(OutputError, shelf / name, force=force)) == force
    assert (shelf / "folder" / "thesis.txt").read_text() == "years of work"
    assert (shelf / "file").read_text() == "years of work"


def test_an_empty_folder_needs_no_force(shelf: Path) -> None:
    (shelf / "out").mkdir()
    write(shelf / "out")
    assert (shelf / "out" / MANIFEST_NAME).is_file()


def test_the_current_folder_is_not_pulled_away(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf / "here").mkdir()
    monkeypatch.chdir(shelf / "here")
    assert "give one inside it" in refusal(OutputError, Path())


def test_a_link_stays_and_what_it_points_to_is_written(shelf: Path) -> None:
    (shelf / "link").symlink_to(shelf / "target")
    write(shelf / "link", text="old")
    write(shelf / "link", force=True, text="new")
    assert (shelf / "link").is_symlink()
    assert (shelf / "target" / MANIFEST_NAME).read_text() == "new"


def test_below_a_file(shelf: Path) -> None:
    (shelf / "file").write_text("")
    for out in (shelf / "file" / "out", shelf / "file" / "deeper" / "out"):
        assert "a part of the path is a file" in refusal(OutputError, out)


def test_a_name_that_is_too_long(shelf: Path) -> None:
    assert "name too long" in refusal(OutputError, shelf / ("long" * 100))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full; free some space, or choose another place with -o"),
        (errno.EDQUOT, "the quota of the disk is used up"),
        (errno.EFBIG, "larger files are not allowed here"),
        (errno.EACCES, "no permission to write there"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "Input/output error, or choose another place with -o"),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "write_text", "rename"])
def test_every_way_in_which_the_system_refuses(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, said: str
) -> None:
    def refused(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, call, refused)
        message = refusal(OutputError, shelf / "parent" / "out")
    assert said in message
    assert os.listdir(shelf) == []


def test_a_file_that_cannot_be_read_is_not_blamed_on_the_output(shelf: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"), writing(shelf / "out", force=False):
        (shelf / "model.gguf").read_bytes()
    assert os.listdir(shelf) == []


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        with (
            pytest.raises(OutputError, match="the disk is full"),
            writing(tmp_path / "out", force=False) as folder,
            (folder / "large").open("wb") as file,
        ):
            file.write(bytes(1 << 20))
        assert os.listdir(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_sources_hash_is_of_contents_in_order(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2"), ("c", "1")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in "abc")
    assert sources_hash((a, b)) == sources_hash((c, b)) != sources_hash((b, a))
    assert len(sources_hash(())) == 64
