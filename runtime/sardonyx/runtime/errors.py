"""Everything that sardonyx raises on purpose.

SardonyxError               one line for people: what was wrong, where, and what to do next
├── SourceError             a checkpoint or model source cannot be read or is not understood
│   └── UnknownArchitecture an architecture of which there is no description here
├── ArtifactError           a folder, or a file made with it, is not sound (missing, cut, altered, of another)
├── OutputError             the place to write to is unusable (exists, unwritable, full)
├── RequestError            a request that cannot be honoured (prompt too long, option out of range)
├── DownloadError           a model could not be fetched, or what came is not what was pinned
├── VerificationFailed      an artifact was measured and is not as good as its limits demand
└── MissingExtra            an optional package is not installed; names the extra that brings it

The command line prints the message of any of these on one line and exits with 2; of a failed verification it
prints the table as well, and exits with 1. Whatever else is raised is a defect in sardonyx and keeps its
traceback.
"""

from collections.abc import Sequence


class SardonyxError(Exception):
    """Root of the tree: the message is one line, made to be read by a person."""


class SourceError(SardonyxError):
    """A checkpoint or model source cannot be read or is not understood."""


class UnknownArchitecture(SourceError):  # noqa: N818  (a noun phrase reads better where it is raised)
    """A config names an architecture of which there is no description."""


class ArtifactError(SardonyxError):
    """A folder is not a sound artifact, or a file is not of the one it is used with."""


class OutputError(SardonyxError):
    """The place to write to is unusable."""


class RequestError(SardonyxError):
    """A request cannot be honoured as asked."""


class DownloadError(SardonyxError):
    """A model could not be fetched, or what arrived is not what was pinned."""


class VerificationFailed(SardonyxError):  # noqa: N818
    """An artifact was measured and found wanting. `table` shows what was missed, its heading first."""

    def __init__(self, message: str, table: Sequence[Sequence[str]]) -> None:
        super().__init__(message)
        self.table = table


class MissingExtra(SardonyxError):  # noqa: N818
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'sardonyx[{extra}]'")
