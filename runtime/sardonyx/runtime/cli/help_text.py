"""The help of every command as text 80 columns wide: what the README shows and its test compares.

`python -m sardonyx.runtime.cli.help_text` prints it.
"""

import contextlib
import io

from sardonyx.runtime.cli import application

WIDTH = 80


def help_texts() -> dict[str, str]:
    """Help by command line: `sardonyx`, `sardonyx bench`, ..."""
    shown = application()
    lines = [[], *([command.name or ""] for command in shown.registered_commands)]
    for group in shown.registered_groups:
        assert group.typer_instance is not None
        commands = group.typer_instance.registered_commands
        lines += [[group.name or "", *one] for one in [[], *([command.name or ""] for command in commands)]]
    return {" ".join(["sardonyx", *words]): _help(words) for words in sorted(lines)}


def _help(words: list[str]) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        application()([*words, "--help"], prog_name="sardonyx", terminal_width=WIDTH)
    return text.getvalue()


if __name__ == "__main__":
    print("\n".join(f"$ {line} --help\n{text}" for line, text in help_texts().items()))
