"""Models in a repository of the Hugging Face hub: only the files that export reads.

`huggingface_hub` does the talking and honours its own settings (HF_ENDPOINT, HF_TOKEN). This file chooses the
files and turns the hub's refusals into one line.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sardonyx.runtime.errors import DownloadError, MissingExtra, OutputError
from sardonyx.runtime.fetch.progress import Progress, watched

REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>.+))?", re.ASCII)

WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "chat_template*",
    "*.safetensors.index.json",
)


@dataclass(frozen=True)
class Repository:
    """`OWNER/NAME[@REVISION][:FILE.gguf]`, taken apart."""

    id: str
    revision: str | None
    file: str | None


def parse_repository(name: str) -> Repository | None:
    """What `name` means on the hub, or None if it does not have the form of a repository."""
    match = REPOSITORY.fullmatch(name)
    return Repository(match["id"], match["revision"], match["file"]) if match else None


def fetch_repository(repository: Repository, folder: Path, progress: Progress) -> None:
    """Put the needed files of a repository into `folder`. Raises DownloadError or MissingExtra."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the progress is shown by others,
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # and what matters is raised
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError:
        raise MissingExtra("huggingface_hub", "hub") from None
    endpoint = os.environ.get("HF_ENDPOINT")
    with _one_line_refusals(repository):
        api = HfApi(endpoint=endpoint, library_name="sardonyx")
        info = api.model_info(repository.id, revision=repository.revision, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or []}
        chosen = choose_files(list(files), repository)
        total = sum(files[name].size or 0 for name in chosen)
        with watched(folder, total, f"downloading {repository.id}", progress):
            for name in chosen:  # one after the other: the client's own threads would outlive a Ctrl-C
                api.hf_hub_download(repository.id, name, revision=info.sha, local_dir=folder)
                _check(folder / name, files[name])
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes


def choose_files(names: list[str], repository: Repository) -> list[str]:
    """The files that export needs, of all in a repository. Raises DownloadError when they are not there."""
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if repository.file:
        if repository.file in ggufs:
            return [repository.file]
        near = get_close_matches(repository.file, ggufs, n=3, cutoff=0.3)
        instead = f"did you mean {' or '.join(near)}?" if near else "it has no .gguf file like it"
        raise DownloadError(f"{repository.id}: no file {repository.file}; {instead}")
    weights = [name for name in names if fnmatch(name, "*.safetensors") and "/" not in name]
    weights = [name for name in weights if name.startswith("model")] or weights
    if not weights and ggufs:
        raise DownloadError(f"{repository.id}: holds GGUF files; choose one, as {repository.id}:{ggufs[0]}")
    if not weights or "config.json" not in names:
        missing = "config.json" if weights else ".safetensors file"
        raise DownloadError(
            f"{repository.id}: has no {missing}, so there is nothing here that export can read"
        )
    return sorted(weights + [name for name in names if any(fnmatch(name, pattern) for pattern in WANTED)])


def _check(path: Path, file: Any) -> None:
    """Compare with the hash that the hub keeps of large files; the client compares sizes only."""
    if file.lfs is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.lfs.sha256:
        raise DownloadError(f"{path.name}: SHA-256 {found}, the hub says {file.lfs.sha256}; nothing was kept")


@contextmanager
def _one_line_refusals(repository: Repository) -> Iterator[None]:
    """Say in one line, and with a cure, why the hub did not deliver."""
    from huggingface_hub import errors

    name, revision = repository.id, repository.revision
    try:
        yield
    except errors.GatedRepoError:
        raise DownloadError(
            f"{name}: gated; accept its terms on the hub and set HF_TOKEN to a token of yours"
        ) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"{name}: has no revision {revision}") from None
    except errors.RepositoryNotFoundError:
        raise DownloadError(
            f"{name}: no such repository on the hub, or a private one (then set HF_TOKEN)"
        ) from None
    except errors.HFValidationError as error:
        raise DownloadError(f"{name}: not a name of the hub ({_first_line(error)})") from None
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        if isinstance(error, OSError) and error.errno and error.filename:
            raise OutputError(f"{error.filename}: cannot be written ({error.strerror})") from None
        raise DownloadError(f"{name}: the hub did not deliver ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
