"""How plots look: colours, letters, white ground; and figures as SVG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; their yellow, faint on white, is a dark red here.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444", "#882255")
MARKERS = ("o", "^", "s")
INK, FAINT = "#222222", "#DDDDDD"
_THEME: Any = {
    "figure.facecolor": "white",  # on dark pages, too
    "figure.dpi": 200.0,  # of what is drawn as pixels inside an SVG
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a stranger's names are no formulas
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
    "svg.fonttype": "none",  # letters stay letters, in any script
    "svg.hashsalt": "jepa-lightning",  # the same drawing is the same file
}


@contextmanager
def theme() -> Iterator[None]:
    """Inside, figures that are made and written have the look of this package; matplotlib's settings stay as they are.

    Letters of scripts that matplotlib's font lacks are left to the browser's.
    """
    with rc_context(_THEME), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def to_svg(figure: Figure) -> str:
    """The text of an SVG file; the same figure gives the same text.

    The figure is laid out once (`savefig` does it several times) and stays so, in the units of the file.
    """
    file = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return file.getvalue().decode()


def colour(number: int) -> str:
    """The colour of the encoder or group of this number; after the last the first comes again."""
    return COLOURS[number % len(COLOURS)]


def fit(words: str, letters: int) -> str:
    """The words, cut off with an ellipsis where there are more letters."""
    return words if len(words) <= letters else words[: letters - 1] + "…"
