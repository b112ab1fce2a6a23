"""The options of commands that run a model: on which execution provider."""

from typing import TYPE_CHECKING

from sardonyx.runtime.cli.options import Given, Option

if TYPE_CHECKING:
    from sardonyx.runtime.backends.providers import Place

GROUP = "Options"

PLACE_OPTIONS = [
    Option(
        "provider", str, "execution provider; auto takes the best that is here [cpu]", GROUP, metavar="NAME"
    ),
    Option(
        "provider_options",
        tuple[str, ...],
        "a setting of the provider",
        GROUP,
        shown=False,
        metavar="KEY=VALUE",
    ),
    Option("allow_fallback", bool, "let the CPU compute what the provider cannot", GROUP, shown=False),
]


def place_of(given: Given) -> "Place":
    """The place that the options name. Raises RequestError for what is not known or not here."""
    from sardonyx.runtime.backends import providers
    from sardonyx.runtime.cli.terminal import say

    name = given.get("provider", providers.CPU.name)
    if name == providers.AUTO:
        from sardonyx.runtime.backends.sessions import present

        name = present()[0].name
        say(f"provider: {name}")
    fallback = given.get("allow_fallback", False)
    return providers.place(name, given.get("provider_options", ()), fallback=fallback)
