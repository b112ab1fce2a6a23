"""Size, quality and speed of artifacts as one picture. Needs matplotlib, which is loaded when it draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sardonyx.runtime.cli.extras import extra
from sardonyx.runtime.errors import OutputError, RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.cli.compare import Compared

LEAST_KL = 1e-5
"""Where a divergence of zero is drawn on a logarithmic axis."""

AREA_PER_TOKEN_PER_S = 4.0
"""Square points of a disc for each token that is decoded in a second."""


def ready(path: Path) -> None:
    """Raises MissingExtra, or RequestError for a format that is not drawn, before figures take time."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RequestError(f"{path}: a picture is a .png, .svg or .pdf")
    with extra("plot"):
        import matplotlib.figure  # noqa: F401


def draw(compared: Sequence["Compared"], path: Path) -> None:
    """Megabytes across, mean KL upwards, a disc's area the decode speed. Raises OutputError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for one in compared:
        if one.quality is not None:
            _disc(axes, one, max(one.quality.kl_mean, LEAST_KL))
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.margins(0.15)
    axes.set_xlabel("size in MB")
    axes.set_ylabel("mean KL from float32, nats per token")
    axes.set_title("lower left is better; area: decoded tokens per second", fontsize="medium")
    axes.grid(which="major", alpha=0.3)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OutputError(f"{path}: the picture cannot be written ({error.strerror})") from None


def _disc(axes: Any, one: "Compared", height: float) -> None:
    at = (one.bytes / 1e6, height)
    axes.scatter(*at, s=AREA_PER_TOKEN_PER_S * one.decode_tokens_per_s, alpha=0.5)
    label = f"{one.name}\n{one.decode_tokens_per_s:.0f} tokens/s"
    axes.annotate(label, at, xytext=(0, 0), textcoords="offset points", ha="center", va="center", fontsize=8)
