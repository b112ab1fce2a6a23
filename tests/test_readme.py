"""The README shows what the commands say of themselves. `python tests/test_readme.py` writes it anew."""

from pathlib import Path

from sardonyx.runtime.cli.help_text import help_texts

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- help: written by tests/test_readme.py -->\n", "<!-- end of help -->"


def block() -> str:
    """All help texts as Markdown."""
    return "".join(f"\n```\n$ {line} --help\n{text.rstrip()}\n```\n" for line, text in help_texts().items())


def test_the_readme_shows_the_help_of_every_command() -> None:
    assert block() in README.read_text("utf-8"), "run: python tests/test_readme.py"


if __name__ == "__main__":
    before, _, rest = README.read_text("utf-8").partition(START)
    README.write_text(before + START + block() + END + rest.partition(END)[2], "utf-8")
