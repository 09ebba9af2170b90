"""How all plots look: colours, lines with bands, logarithmic axes, files. matplotlib is loaded when something is drawn."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MAP_COLOURS = "cividis"  # rises in lightness, and is seen alike with any colour vision
_STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.hashsalt": "xbcompile",  # the same file for the same figures
}


@contextmanager
def plot_style() -> Iterator[None]:
    """Figures made inside look alike."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def new_figure(
    columns: int = 1, width: float = 4.4, height: float = 3.4, rows: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row.

    Args:
        columns: panels side by side.
        width: of each, inches.
        height: likewise.
        rows: of panels.
        options: of matplotlib's `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def rendered(figure: Figure, kinds: Sequence[str] = ("png", "svg")) -> dict[str, bytes]:
    """A figure's files by ending, without the time when they were made.

    Args:
        figure: made inside of `plot_style`.
        kinds: png, svg.
    """
    files = {}
    for kind in kinds:
        buffer = io.BytesIO()
        with plot_style(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # such a character is drawn as a box
            figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        files[kind] = buffer.getvalue()
    return files


def literal(name: str) -> str:
    """A name as text of a plot, where matplotlib takes what stands between dollars for a formula."""
    return name.replace("$", r"\$")


def logarithmic(axes: Axes, x: bool = True, y: bool = True) -> None:
    """Logarithmic axes with plain numbers, as many as the range wants."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for wanted, set_scale, axis in ((x, axes.set_xscale, axes.xaxis), (y, axes.set_yscale, axes.yaxis)):
        if not wanted:
            continue
        set_scale("log")
        low, high = sorted(axis.get_view_interval())
        subs = (1.0, 2.0, 3.0, 5.0) if high / low < 15 else (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=20) if high / low > 2.5 else MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axes: Axes, columns: int = 1) -> None:
    """The legend below the curves, never on them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
