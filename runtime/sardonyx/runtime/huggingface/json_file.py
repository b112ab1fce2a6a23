"""Reading a JSON object from a model's folder, with errors that name the file and the place in it."""

import json
from pathlib import Path
from typing import Any

from sardonyx.runtime.errors import SourceError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises SourceError when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not UTF-8 text; download it again") from None
    except json.JSONDecodeError as error:
        what = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise SourceError(f"{path}: not valid JSON ({what}); download it again") from None
    except RecursionError:
        raise SourceError(f"{path}: not valid JSON (nested too deeply); download it again") from None
    if not isinstance(value, dict):
        raise SourceError(f"{path}: should hold a JSON object, not a {type(value).__name__}")
    return value


def read_json_if_any(path: Path) -> dict[str, Any]:
    """The object in a file, empty when there is no such file."""
    return read_json(path) if path.exists() else {}
