"""`sardonyx list`: what is in the library."""


def command() -> None:
    """Show what the library holds.

    Checkpoints are what was pulled, artifacts what export made of them.
    """
    from sardonyx.runtime.cli.terminal import say, size_text, table_text
    from sardonyx.runtime.library import DEFAULT_MODEL, Library

    library = Library.of_user()
    entries = library.entries()
    if not entries:
        say(f"the library is empty ({library.root}); fill it with: sardonyx pull {DEFAULT_MODEL}")
        return
    print(table_text([("NAME", "KIND", "SIZE"), *((e.name, e.kind, size_text(e.bytes)) for e in entries)]))
    say(f"{size_text(sum(entry.bytes for entry in entries))} in {library.root}")
    if unfinished := [entry.name for entry in entries if entry.kind == "unfinished"]:
        say(f"unfinished: being made now, or left by a killed command; remove: sardonyx rm {unfinished[0]}")
