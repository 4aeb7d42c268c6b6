"""The look of every Vitrail figure: quiet, well labelled, the same everywhere. Figures are made without global state."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitrail.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]

BLUE, ORANGE, TEAL, VIOLET, SKY, OCHRE, ROSE, GREY = PALETTE = ("#2b6cb0", "#dd6b20", "#1f9d8a", "#7b55a8", "#74b3e0", "#b58a0b", "#c2507a", "#718096")
"""Colours told apart with any kind of colour vision (they differ in lightness too); use them in this order."""
INK, FAINT, GRID = "#1a202c", "#5a6778", "#e2e8f0"

_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "vitrail",
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": "#a0aec0",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


def figure(title: str, *, subtitle: str = "", x: str = "", y: str = "", size: tuple[float, float] = (7.2, 4.2)) -> tuple[Figure, Axes]:
    """One empty figure of `size` inches in the house style: `title` at the left, `subtitle` small under it, axes named `x` and `y`.

    Returns the figure and its axes; write it with `save`.
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE | {"axes.prop_cycle": cycler(color=PALETTE)}):
        drawn = Figure(figsize=size)
        FigureCanvasAgg(drawn)
        # The layout engine keeps this strip free; both lines of it start at the same left edge.
        strip = (0.66 if subtitle else 0.42) / size[1]
        drawn.set_layout_engine("constrained", rect=(0.0, 0.0, 1.0, 1.0 - strip), w_pad=0.12, h_pad=0.08)
        left = 0.14 / size[0]
        drawn.text(left, 1 - 0.12 / size[1], title, ha="left", va="top", fontsize=12.5, fontweight="bold", color=INK)
        drawn.text(left, 1 - 0.38 / size[1], subtitle, ha="left", va="top", fontsize=9.5, color=FAINT)
        axes = drawn.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.tick_params(which="both", length=0)
    return drawn, axes


def share(value: float) -> str:
    """A share in [0, 1] in words: `7.3 %`, `51 %`."""
    return f"{100 * value:.1f} %" if value < 0.0995 else f"{100 * value:.0f} %"


def plain(text: str) -> str:
    """`text` from outside, safe as a label: a dollar sign starts no formula, a long name is cut."""
    return (text if len(text) <= 40 else text[:39] + "…").replace("$", r"\$")


def plain_numbers(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Write the ticks of an axis as 1,000 instead of 10^3."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    def text(value: float, position: int) -> str:
        return f"{value:,.0f}" if value == round(value) else f"{value:g}"

    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if wanted:
            axis.set_major_formatter(FuncFormatter(text))
            axis.set_minor_formatter(NullFormatter())


def logarithmic(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Make an axis logarithmic, with ticks at 1, 2, 5 where it spans less than two decades. Call it after the data are drawn."""
    from matplotlib.ticker import LogLocator

    for wanted, axis, turn, limits in ((x, axes.xaxis, axes.set_xscale, axes.get_xlim), (y, axes.yaxis, axes.set_yscale, axes.get_ylim)):
        if wanted:
            turn("log")
            low, high = limits()
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))


def percent(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Write the ticks of an axis, shares in [0, 1], as percentages."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if wanted:
            axis.set_major_formatter(FuncFormatter(lambda value, position: f"{100 * value:g} %"))
            axis.set_minor_formatter(NullFormatter())


def save(drawn: Figure, path: str | Path) -> Path:
    """Write a figure atomically as PNG or SVG, as the ending of `path` says; text in SVG stays text, the same figure gives the same bytes."""
    import matplotlib as mpl

    target = Path(path)
    kind = target.suffix.removeprefix(".")
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(_STYLE), atomic_file(target) as temporary, warnings.catch_warnings():
        # A script the font lacks is drawn as boxes; that is no news for the terminal.
        warnings.filterwarnings("ignore", message="Glyph")
        drawn.savefig(temporary, format=kind, dpi=144, facecolor="white", metadata=metadata)
    return target
