"""Pieces of SVG drawings: text, lines, axes with numbers. What they make up is in `plots`.

Drawn by hand, so that a report needs no plotting library. Only elements and attributes that browsers, GitHub and
common converters know: no style sheet, no script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from jepa_lightning.printable import printable

# Okabe and Ito's colours, told apart with any colour vision, and a grey and a dark red; faint yellow comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999", "#882255", "#F0E442")
INK, FAINT = "#222222", "#DDDDDD"
SIZE = 13  # of the letters, in pixels
LETTER = 7.3  # about the mean width of one


def text(
    words: str,
    x: float,
    y: float,
    *,
    anchor: str = "middle",
    size: float = SIZE,
    turn: float = 0,
    bold: bool = False,
    colour: str = INK,
    halo: bool = False,
) -> str:
    """Words at a point; `turn` in degrees clockwise, `halo` for white around them, to be read on dots."""
    more = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    more += ' font-weight="bold"' if bold or halo else ""
    more += ' stroke="#FFFFFF" stroke-width="4" stroke-linejoin="round"' if halo else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:.4g}" fill="{colour}"'
    return f"<text {place}{more}>{_escape(words)}</text>"


def line(points: Iterable[tuple[float, float]], colour: str = INK, *, width: float = 1, dashed: bool = False) -> str:
    """A line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}/>'


def area(points: Iterable[tuple[float, float]], colour: str) -> str:
    """A filled, see-through area."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{path}" fill="{colour}" fill-opacity="0.18" stroke="none"/>'


def box(x: float, y: float, width: float, height: float, colour: str, *, title: str = "") -> str:
    """A filled rectangle; a browser shows the title under the pointer."""
    inside = f"<title>{_escape(title)}</title>" if title else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">{inside}</rect>'


def dot(x: float, y: float, colour: str, *, radius: float = 3, opacity: float = 1) -> str:
    """A filled circle."""
    faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"{faint}/>'


def document(parts: Iterable[str], *, width: float, height: float, title: str) -> str:
    """The whole file: the parts on a white ground, under a title that screen readers read too."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family="Helvetica, Arial, DejaVu Sans, sans-serif">'
    )
    ground = box(0, 0, width, height, "#FFFFFF")
    words = text(fit(title, width - 20, size=15), width / 2, 24, size=15, bold=True)
    return "\n".join([head, f"<title>{_escape(title)}</title>", ground, words, *parts, "</svg>"]) + "\n"


def legend(names: Sequence[str], colours: Sequence[str], *, x: float, y: float) -> list[str]:
    """Names under each other, each beside its colour; `y` is the top."""
    parts = []
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        middle = y + 10 + 20 * number
        parts += [box(x, middle - 6, 12, 12, colour), text(name, x + 18, middle + 4.5, anchor="start")]
    return parts


def legend_width(names: Sequence[str]) -> float:
    """Pixels that `legend` needs to the right of `x`; 0 without names."""
    return 18 + 12 + LETTER * max(map(len, names)) if names else 0


def fit(words: str, pixels: float, *, size: float = SIZE) -> str:
    """The words, cut off with an ellipsis where they are wider."""
    room = max(2, int(pixels / (LETTER * size / SIZE)))
    return words if len(words) <= room else words[: room - 1] + "…"


def _escape(words: str) -> str:
    return escape(printable(words))


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) within the range."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's number: 20000 as 20k, 0.25 as it is."""
    if abs(value) >= 10_000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Axes:
    """From data to pixels.

    Attributes:
        x: lowest and highest value.
        y: the same, upwards.
        place: left, top, width and height in pixels.
        log_x: whether x is on a logarithmic scale.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    place: tuple[float, float, float, float]
    log_x: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        left, top, width, height = self.place
        values = (x, *self.x)
        x, low, high = (math.log10(value) for value in values) if self.log_x else values
        return left + width * _share(x, low, high), top + height * (1 - _share(y, *self.y))

    def frame(
        self, x_label: str, y_label: str, *, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]
    ) -> list[str]:
        """Grid lines, the two axes, their numbers and labels."""
        left, top, width, height = self.place
        bottom = top + height
        parts = []
        for value, name in y_ticks:
            y = self.at(self.x[0], value)[1]
            parts += [line([(left, y), (left + width, y)], FAINT), text(name, left - 7, y + 4.5, anchor="end")]
        for value, name in x_ticks:
            x = self.at(value, self.y[0])[0]
            parts += [line([(x, bottom), (x, bottom + 5)]), text(name, x, bottom + 20)]
        parts.append(line([(left, top), (left, bottom), (left + width, bottom)]))
        parts.append(text(fit(x_label, width + 40), left + width / 2, bottom + 40))
        longest = max((len(name) for _, name in y_ticks), default=0)
        x = left - 18 - LETTER * longest
        parts.append(text(fit(y_label, height + 40), x, top + height / 2, turn=-90))
        return parts


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5
