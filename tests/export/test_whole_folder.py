"""A folder is whole or not there, whatever happens while it is filled."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from sardonyx.export import whole_folder
from sardonyx.export.whole_folder import filling
from sardonyx.runtime.errors import OutputError


def fill(place: Path, text: str) -> None:
    with filling(place) as folder:
        (folder / "file").write_text(text)


def content(place: Path) -> str:
    """The text of the only file of the only folder there."""
    assert os.listdir(place.parent) == [place.name]
    assert os.listdir(place) == ["file"]
    return (place / "file").read_text()


@pytest.fixture(params=["exchanging", "stepping aside"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "stepping aside":
        monkeypatch.setattr(whole_folder, "_exchange", lambda a, b: False)
    return tmp_path / "place"


def test_a_new_place(place: Path) -> None:
    fill(place, "new")
    assert content(place) == "new"


def test_an_empty_folder_is_replaced(place: Path) -> None:
    place.mkdir()
    fill(place, "new")
    assert content(place) == "new"


def test_a_full_folder_is_replaced(place: Path) -> None:
    fill(place, "old")
    fill(place, "new")
    assert content(place) == "new"


def test_the_place_is_not_touched_before_the_end(place: Path) -> None:
    fill(place, "old")
    with filling(place) as folder:
        (folder / "file").write_text("new")
        assert os.listdir(place) == ["file"]
        assert (place / "file").read_text() == "old"


@pytest.mark.parametrize("fault", [ValueError, OSError, KeyboardInterrupt])
def test_a_fault_leaves_what_was_there(place: Path, fault: type[BaseException]) -> None:
    def fail() -> None:
        with filling(place) as folder:
            (folder / "file").write_text("half")
            raise fault

    with pytest.raises(fault):
        fail()
    assert os.listdir(place.parent) == []
    fill(place, "old")
    with pytest.raises(fault):
        fail()
    assert content(place) == "old"


def test_missing_parents_are_made_and_on_a_fault_removed(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "place"
    with pytest.raises(ValueError), filling(place):
        raise ValueError
    assert os.listdir(tmp_path) == []
    fill(place, "new")
    assert content(place) == "new"


def test_what_a_kill_left_is_taken_over(place: Path) -> None:
    stale = place.parent / ".place.partial"
    (stale / "folder").mkdir(parents=True)
    (stale / "half").write_text("half")
    (stale / "link").symlink_to(place.parent)
    fill(place, "new")
    assert content(place) == "new"


def test_two_cannot_fill_the_same_place(place: Path) -> None:
    with filling(place) as folder:
        (folder / "file").write_text("first")
        with pytest.raises(OutputError, match="another export is writing there"), filling(place):
            raise AssertionError
    assert content(place) == "first"


def test_one_that_waited_for_the_folder_to_move_makes_a_new_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden folder takes its place between being opened and being locked by somebody else."""
    lock, first = whole_folder._lock, filling(place)
    (first.__enter__() / "file").write_text("first")

    def late(folder: Path, handle: int) -> None:
        monkeypatch.setattr(whole_folder, "_lock", lock)
        first.__exit__(None, None, None)
        lock(folder, handle)

    monkeypatch.setattr(whole_folder, "_lock", late)
    with filling(place) as folder:
        assert os.listdir(folder) == []
        assert (place / "file").read_text() == "first"
        (folder / "file").write_text("second")
    assert content(place) == "second"


def test_a_kill_between_two_renames_is_undone(place: Path) -> None:
    fill(place, "old")
    place.rename(place.parent / ".place.previous")
    with filling(place) as folder:
        assert (place / "file").read_text() == "old"
        (folder / "file").write_text("new")
    assert content(place) == "new"


@pytest.mark.skipif(sys.platform != "linux", reason="others step aside")
def test_linux_exchanges(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / name, name)
    assert whole_folder._exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name / "file").read_text() for name in ("a", "b")] == ["b", "a"]


def test_a_kill_after_two_renames_is_completed(place: Path) -> None:
    fill(place, "new")
    shutil.copytree(place, place.parent / ".place.previous")
    with pytest.raises(ValueError), filling(place):
        raise ValueError
    assert content(place) == "new"


def test_when_the_second_rename_fails_the_first_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    fill(place, "old")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == ".place.partial":
            raise PermissionError
        return rename(path, target)

    monkeypatch.setattr(whole_folder, "_exchange", lambda a, b: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(PermissionError):
        fill(place, "new")
    assert content(place) == "old"


def test_new_folders_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        fill(tmp_path / "place", "new")
    finally:
        os.umask(mask)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o750


def test_without_locks_it_works_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_folder, "fcntl", None)
    fill(tmp_path / "place", "old")
    fill(tmp_path / "place", "new")
    assert content(tmp_path / "place") == "new"


@pytest.mark.skipif(sys.platform != "linux", reason="what a handle stands for is read off /proc")
def test_all_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []

    def fsync(handle: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{handle}")).name, place.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    place = tmp_path / "it"
    with filling(place) as folder:
        (folder / "a").write_text("a")
        (folder / "b").write_text("b")
    assert sorted(synced) == [(".it.partial", False), ("a", False), ("b", False)]
