"""Lines are a budget: what must be scrolled is not read. Prints the worst five of each kind (`pytest -s`)."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FILES = [path for name in ("models", "export", "runtime") for path in (ROOT / name).rglob("*.py")]
Measured = tuple[int, str]


def files() -> Iterator[Measured]:
    for path in FILES:
        yield len(path.read_text("utf-8").splitlines()), str(path.relative_to(ROOT))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Any, str]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, kinds):
                yield node, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"  # type: ignore[attr-defined]


def lines_of(*kinds: type[ast.AST]) -> Iterator[Measured]:
    for node, place in nodes(*kinds):
        yield node.end_lineno - node.lineno + 1, place


def parameters() -> Iterator[Measured]:
    """A command's parameters are its options, and a record's its fields: neither is counted."""
    for node, place in nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        if "runtime/cli/" not in place:
            a = node.args
            yield (
                len([x for x in (*a.posonlyargs, *a.args, *a.kwonlyargs) if x.arg not in ("self", "cls")]),
                place,
            )


def inheritance() -> Iterator[Measured]:
    """Levels of our own classes above a class. The tree of errors is meant to be one, and not counted."""
    above = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for node, place in nodes(ast.ClassDef)
        if "/errors.py" not in place
    }

    def levels(name: str) -> int:
        return max((1 + levels(base) for base in above[name] if base in above), default=0)

    return ((levels(name), name) for name in above)


@pytest.mark.parametrize(
    ("what", "measured", "budget"),
    [
        ("lines of a file", files, 300),
        ("lines of a class", lambda: lines_of(ast.ClassDef), 200),
        ("lines of a function", lambda: lines_of(ast.FunctionDef, ast.AsyncFunctionDef), 60),
        ("parameters", parameters, 6),
        ("levels of inheritance", inheritance, 1),
    ],
)
def test_budget(what: str, measured: Any, budget: int) -> None:
    worst = sorted(measured(), reverse=True)[:5]
    print(f"\n{what} (budget {budget}):", *(f"{size:6d}  {place}" for size, place in worst), sep="\n")
    assert not [place for size, place in worst if size > budget]
