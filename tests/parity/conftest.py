"""The real model, fetched as users fetch it."""

from pathlib import Path

import pytest

from sardonyx.runtime.fetch import pull
from sardonyx.runtime.library import DEFAULT_MODEL, Library


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file, downloaded into the user's library unless it is there."""
    return pull(DEFAULT_MODEL, Library.of_user(), lambda done, total, what: None)
