"""The console script, and `python -m sardonyx.runtime`. An interrupt while modules load is quiet, too."""

import sys


def main() -> None:
    """Run the command line. Always leaves by SystemExit."""
    try:
        from sardonyx.runtime.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
