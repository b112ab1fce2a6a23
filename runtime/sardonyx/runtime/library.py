"""The user's library: checkpoints that were pulled and artifacts made of them, in the user's cache folder.

    <root>/checkpoints/<model>/            what `pull` fetched: one .gguf file, or a Hugging Face folder
    <root>/artifacts/<model>-<recipe>/     what export made of it

It knows names and folders. It does not know how a model is fetched, exported or run.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from sardonyx.runtime.errors import ArtifactError, OutputError, SourceError
from sardonyx.runtime.manifest import MANIFEST_NAME, read_manifest

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_RECIPE = "int4"

Kind = Literal["checkpoint", "artifact", "unfinished"]

UNSAFE = re.compile(r'^\.|[%/\\:*?"<>|\x00-\x1f\x7f]')
"""What may not stand in a folder's name somewhere; a leading dot marks what is still being written."""


def folder_name(name: str) -> str:
    """A model's name as one folder name on any system. `unquote` undoes it."""
    return UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)


@dataclass(frozen=True)
class Entry:
    """One thing in the library. `bytes` is what its files hold, in all."""

    name: str
    kind: Kind
    path: Path
    bytes: int


@dataclass(frozen=True)
class Library:
    """The models under `root`. Nothing is created before the first model is added."""

    root: Path

    @classmethod
    def of_user(cls) -> "Library":
        """`$SARDONYX_HOME`, else the place where this system keeps a user's caches."""
        if home := os.environ.get("SARDONYX_HOME"):
            return cls(Path(home).expanduser().absolute())
        return cls(_user_cache() / "sardonyx")

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def checkpoint_folder(self, model: str) -> Path:
        """Where the checkpoint of that name is, or would be."""
        return self.checkpoints / folder_name(model)

    def artifact_folder(self, model: str, recipe: str) -> Path:
        """Where the artifact of that model and recipe is, or would be."""
        return self.artifacts / folder_name(f"{model}-{recipe}")

    def entries(self) -> list[Entry]:
        """Everything here, sorted by kind and name; what a killed download or export left is `unfinished`."""
        shelves: list[tuple[Kind, Path]] = [("artifact", self.artifacts), ("checkpoint", self.checkpoints)]
        found = [_entry(kind, path) for kind, shelf in shelves if shelf.is_dir() for path in shelf.iterdir()]
        return sorted(found, key=lambda entry: (entry.kind, entry.name))

    def checkpoint(self, model: str) -> Path | None:
        """The file (GGUF) or folder (Hugging Face) of a checkpoint, or None if it is not here."""
        folder = self.checkpoint_folder(model)
        if not folder.is_dir():
            return None
        files = list(folder.iterdir())
        return files[0] if len(files) == 1 else folder

    def source(self, name: str) -> Path:
        """What to export: an existing path as it is, else the checkpoint of that name. Raises SourceError."""
        path = Path(name)
        if path.exists():
            return path
        if checkpoint := self.checkpoint(name):
            return checkpoint
        raise SourceError(f"{name}: no such file or folder, nor a checkpoint in the library{self.hint(name)}")

    def artifact(self, name: str) -> Path | None:
        """The artifact folder that `name` means, or None if it is not here.

        `name` is a path, `model-recipe` as `list` shows it, `model:recipe`, or a model alone: then the
        default recipe, or else the only artifact of that model. Raises ArtifactError when several remain.
        """
        if (Path(name) / MANIFEST_NAME).is_file():
            return Path(name)
        model, colon, recipe = name.rpartition(":")
        guesses = [self.artifacts / folder_name(name)]
        guesses += (
            [self.artifact_folder(model, recipe)] if colon else [self.artifact_folder(name, DEFAULT_RECIPE)]
        )
        for folder in guesses:
            if (folder / MANIFEST_NAME).is_file():
                return folder
        made = [entry for entry in self.entries() if entry.kind == "artifact" and _is_of_model(entry, name)]
        if len(made) > 1:
            raise ArtifactError(f"{name}: which one? {', '.join(entry.name for entry in made)}")
        return made[0].path if made else None

    def find(self, name: str) -> Entry:
        """The entry of that very name, or `checkpoints/NAME`, `artifacts/NAME`. Raises ArtifactError."""
        entries = self.entries()
        model, _, recipe = name.rpartition(":")
        spellings = {name, f"{model}-{recipe}"}
        found = [e for e in entries if spellings & {e.name, f"{e.path.parent.name}/{e.name}"}]
        if len(found) > 1:
            choices = " or ".join(f"{entry.path.parent.name}/{entry.name}" for entry in found)
            raise ArtifactError(f"{name}: both a checkpoint and an artifact have this name; say {choices}")
        if not found:
            raise ArtifactError(f"{name}: not in the library{self.hint(name)}")
        return found[0]

    def remove(self, entry: Entry) -> None:
        """Delete an entry, its name first, so that nothing half-deleted looks whole. Raises OutputError."""
        doomed = entry.path
        try:
            if entry.kind != "unfinished":
                doomed = entry.path.with_name(f".{entry.path.name}.removed")
                entry.path.rename(doomed)
            shutil.rmtree(doomed) if doomed.is_dir() and not doomed.is_symlink() else doomed.unlink()
        except OSError as error:
            raise OutputError(f"{entry.path}: cannot be removed ({error.strerror})") from None

    @contextmanager
    def staging(self, folder: Path) -> Iterator[Path]:
        """A temporary folder that becomes `folder` when the block ends well, and is gone if it does not.

        If someone else finished the same folder meanwhile, theirs stays. Raises OutputError.
        """
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except OSError as error:
            raise OutputError(
                f"{folder.parent}: cannot be written to ({error.strerror}); set SARDONYX_HOME"
            ) from None
        try:
            yield temporary
            temporary.chmod(0o755)
            temporary.rename(folder)
        except OSError as error:
            if not folder.is_dir():
                raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def hint(self, name: str, *others: str) -> str:
        """How a message about an unknown name goes on: with the nearest of the names here and the others."""
        near = get_close_matches(name, [*(entry.name for entry in self.entries()), *others], n=1)
        return f"; did you mean {near[0]}?" if near else "; `sardonyx list` shows what is here"


def _user_cache() -> Path:
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def stored_bytes(path: Path) -> int:
    """What the files under `path` hold, in all. A file that another process renames meanwhile is left out."""
    size = 0
    for file in (path, *path.rglob("*")):
        with suppress(OSError):
            size += 0 if file.is_dir() else file.lstat().st_size
    return size


def _entry(kind: Kind, path: Path) -> Entry:
    whole = not path.name.startswith(".") and (kind == "checkpoint" or (path / MANIFEST_NAME).is_file())
    name, kind = (unquote(path.name), kind) if whole else (path.name, "unfinished")
    return Entry(name, kind, path, stored_bytes(path))


def _is_of_model(entry: Entry, model: str) -> bool:
    """Whether an artifact's name is `model` and its recipe: `smollm2` does not own `smollm2-135m-int4`."""
    try:
        return entry.name == f"{model}-{read_manifest(entry.path).recipe}"
    except ArtifactError:
        return False
