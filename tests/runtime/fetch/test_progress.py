"""Progress is counted by a thread, beside whoever fills, moves and removes what is counted."""

from pathlib import Path
from threading import Event

import pytest

from sardonyx.runtime.fetch import progress
from sardonyx.runtime.fetch.progress import watched


def test_a_file_that_vanishes_while_it_is_counted_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = [Event(), Event()]
    answers = iter([FileNotFoundError("gone"), 7])

    def stored_bytes(folder: Path) -> int:
        answer = next(answers, 7)
        looked[not isinstance(answer, OSError)].set()
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(progress, "INTERVAL_S", 0.001)
    monkeypatch.setattr(progress, "stored_bytes", stored_bytes)
    told: list[int] = []
    with watched(tmp_path, 10, "downloading", lambda done, total, what: told.append(done)):
        assert all(event.wait(60) for event in looked)
    assert told[0] == 0
    assert set(told[1:]) <= {7, 10}
