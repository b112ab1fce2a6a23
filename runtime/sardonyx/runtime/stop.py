"""Stop strings: what of a growing text may be shown, and when it has to end.

Text goes in piece by piece and comes out as soon as it cannot be the beginning of a stop string any more. It
knows nothing of tokens, and its answer does not depend on how the text was cut into pieces.
"""


class StopStrings:
    """A hold-back buffer between a detokenizer and a reader.

    The match that is completed first wins; of those completed by the same character, the longest. `matched`
    is then that stop string, and neither it nor anything after it is ever shown.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        if not all(stops):
            raise ValueError("an empty stop string would stop everywhere")
        self.matched: str | None = None
        self._stops = stops
        self._reach = max((len(stop) for stop in stops), default=1) - 1
        self._held = ""

    def push(self, text: str) -> str:
        """Take the next piece of text; return what may now be shown."""
        if self.matched is not None:
            return ""
        text = self._held + text
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            _, cut, self.matched = min(found)
            self._held = ""
        else:
            cut = len(text) - self._partial(text)
            self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """The text has ended: return what was held back. Nothing, after a match."""
        held, self._held = self._held, ""
        return held

    def _partial(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for length in range(min(self._reach, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
