"""Size, quality and speed of artifacts as one picture. Needs matplotlib, which is loaded when it draws."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sardonyx.runtime.cli.extras import extra
from sardonyx.runtime.errors import OutputError, RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.cli.compare import Compared

LINEAR_KL = 1e-3
"""Nats below which the axis is linear, down to the zero of the reference; above it is logarithmic."""

LARGEST_AREA = 900.0
"""Square points of the disc of the fastest."""


def ready(path: Path) -> None:
    """Raises MissingExtra, or RequestError for a format that is not drawn, before figures take time."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RequestError(f"{path}: a picture is a .png, .svg or .pdf")
    with extra("plot"):
        import matplotlib.figure  # noqa: F401


def draw(compared: Sequence["Compared"], path: Path) -> None:
    """Megabytes across, mean KL upwards, a disc's area the decode speed. Raises OutputError.

    What has no certificate is left out, and counted in the title.
    """
    from matplotlib.figure import Figure

    shown = [one for one in compared if one.quality is not None]
    left_out = (
        f" ({len(compared) - len(shown)} without certificate left out)" if len(shown) < len(compared) else ""
    )
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_yscale("symlog", linthresh=LINEAR_KL, linscale=0.5)
    for one in shown:
        _disc(axes, one, max(other.decode_tokens_per_s for other in shown))
    axes.set_xlim(0, 1.25 * max((one.bytes for one in shown), default=1) / 1e6)
    axes.margins(y=0.15)
    axes.set_xlabel("size in MB")
    axes.set_ylabel("mean KL from float32, nats per token")
    axes.set_title(f"lower left is better; area: decoding speed{left_out}", fontsize="medium")
    axes.grid(which="major", alpha=0.3)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OutputError(f"{path}: the picture cannot be written ({error.strerror})") from None


def _disc(axes: Any, one: "Compared", fastest: float) -> None:
    assert one.quality is not None
    at = (one.bytes / 1e6, one.quality.kl_mean)
    area = LARGEST_AREA * one.decode_tokens_per_s / fastest
    axes.scatter(*at, s=area, alpha=0.5, clip_on=False)
    label = f"{one.name}, {one.decode_tokens_per_s:.0f} tokens/s"
    beside = (math.sqrt(area / math.pi) + 3, 0)  # points
    axes.annotate(label, at, xytext=beside, textcoords="offset points", va="center", fontsize=8)
