"""A text that a user names, read whole, with a word on what is wrong with it. Knows not what it is for."""

from pathlib import Path

from sardonyx.runtime.errors import RequestError


def read_text(path: Path) -> str:
    """Raises RequestError for what is missing, empty or no text in UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not text in UTF-8 (byte {error.start}); convert it") from None
    if not text.strip():
        raise RequestError(f"{path}: empty; give a file with text in it")
    if "\0" in text:
        raise RequestError(f"{path}: has null bytes, so it is no text")
    return text
