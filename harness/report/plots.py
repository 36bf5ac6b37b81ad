"""Plots as inline SVG, drawn by hand so that they take the page's colours, in light and in dark, and stay small.

Arms are told apart by class (`a0`, `a1`, ... the page gives these colours), by marker and by a label at the line's end.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from aem_harness.harness.compare.words import distinct

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 40, 92, 12, 40
COLOURS = 8  # arms beyond that share colours
SHIFT = 5  # px between the error bars of arms at the same place
GAP = 13  # px between labels at the lines' ends


@dataclass(frozen=True)
class Series:
    """One line: its label, its arm's number, and points (x, y, low, high)."""

    label: str
    arm: int
    points: tuple[tuple[float, float, float, float], ...]
    dashed: bool = False


def lines(
    series: Sequence[Series],
    *,
    title: str,
    x: str,
    percent: bool = True,
    log2: bool = False,
    ticks: Sequence[tuple[float, str]] | None = None,
    bars: bool = False,
) -> str:
    """A line a series with its band (or error bars); y starts at zero. `title` is what screen readers hear."""
    xs = [p[0] for one in series for p in one.points]
    top = _top(series)
    steps = nice(0, min(top, 1.0) if percent else top)
    top = max(steps[-1], top)
    low, high = (min(xs), max(xs)) if log2 or ticks else (min(0.0, *xs), max(xs))
    scale: Callable[[float], float] = math.log2 if log2 else float
    span = scale(high) - scale(low) or 1.0
    inner = 0.06 if ticks or log2 else 0.0  # room beside the first and last point of a discrete axis

    def px(value: float) -> float:
        share = (scale(value) - scale(low)) / span if high > low else 0.5
        return LEFT + (WIDTH - LEFT - RIGHT) * (inner + (1 - 2 * inner) * share)

    def py(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(value / top, 0.0), 1.0)

    marks = ticks or [(value, _plain(value)) for value in (sorted(set(xs)) if log2 else nice(low, high))]
    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" class="plot">']
    for value in steps:
        text = f"{100 * value:.0f}" if percent else _plain(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(value):.1f}" y2="{py(value):.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 7}" y="{py(value) + 3.5:.1f}" text-anchor="end">{text}</text>')
    for value, text in _apart(marks, px):
        place = f'x="{px(value):.1f}" y="{HEIGHT - BOTTOM + 16}"'
        out.append(f'<text class="tick" {place} text-anchor="middle">{escape(text)}</text>')
    out.append(f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">{escape(x)}</text>')
    shifts = [SHIFT * (i - (len(series) - 1) / 2) if bars else 0.0 for i in range(len(series))]
    moved = [lambda value, shift=shift: px(value) + shift for shift in shifts]
    for one, at in zip(series, moved, strict=True):
        out += _bars(one, at, py) if bars else _band(one, at, py)
    for one, at in zip(series, moved, strict=True):
        out += _line(one, at, py)
    out += _labels(series, py)
    return "".join([*out, "</svg>"])


def _top(series: Sequence[Series]) -> float:
    """Where the y axis ends: above every line and most of its intervals; the few wide ones of thin data are cut off."""
    values = [p[1] for one in series for p in one.points]
    highs = sorted(p[3] for one in series for p in one.points)
    ends = [one.points[-1][3] for one in series if one.points]
    top = 1.03 * max(max(values) * 1.1, highs[int(0.8 * (len(highs) - 1))], *ends)
    return top if top > 1e-9 else 1.0  # nothing but zeros


def _band(one: Series, px: Callable[[float], float], py: Callable[[float], float]) -> list[str]:
    ahead = [f"{px(p[0]):.1f},{py(p[3]):.1f}" for p in one.points]
    back = [f"{px(p[0]):.1f},{py(p[2]):.1f}" for p in reversed(one.points)]
    return [f'<polygon class="band a{one.arm % COLOURS}" points="{" ".join(ahead + back)}"/>']


def _bars(one: Series, px: Callable[[float], float], py: Callable[[float], float]) -> list[str]:
    return [
        f'<line class="bar a{one.arm % COLOURS}" x1="{px(p[0]):.1f}" x2="{px(p[0]):.1f}" '
        f'y1="{py(p[2]):.1f}" y2="{py(p[3]):.1f}"/>'
        for p in one.points
    ]


def _line(one: Series, px: Callable[[float], float], py: Callable[[float], float]) -> list[str]:
    kind = f"a{one.arm % COLOURS}" + (" dashed" if one.dashed else "")
    path = " ".join(f"{px(p[0]):.1f},{py(p[1]):.1f}" for p in one.points)
    every = max(1, len(one.points) // 8)
    dots = [_marker(one.arm, px(p[0]), py(p[1])) for p in one.points[::every]]
    return [f'<polyline class="line {kind}" points="{path}"/>', *dots]


def _marker(arm: int, x: float, y: float) -> str:
    """A shape of the arm's own: circle, square, triangle, diamond."""
    colour = f'class="dot a{arm % COLOURS}"'
    shape = arm % 4
    if shape == 0:
        return f'<circle {colour} cx="{x:.1f}" cy="{y:.1f}" r="2.8"/>'
    if shape == 1:
        return f'<rect {colour} x="{x - 2.6:.1f}" y="{y - 2.6:.1f}" width="5.2" height="5.2"/>'
    corners = {2: ((0, -3.4), (3.2, 2.6), (-3.2, 2.6)), 3: ((0, -3.8), (3.8, 0), (0, 3.8), (-3.8, 0))}[shape]
    return f'<polygon {colour} points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"/>'


def _labels(series: Sequence[Series], py: Callable[[float], float]) -> list[str]:
    """Labels at the lines' ends, pushed apart where they would overlap."""
    order = sorted((one for one in series if one.points), key=lambda one: py(one.points[-1][1]))
    places: list[float] = []
    for one in order:
        wanted = py(one.points[-1][1]) + 3.5
        places.append(max(wanted, places[-1] + GAP) if places else wanted)
    excess = max(0.0, places[-1] - (HEIGHT - BOTTOM + 4)) if places else 0.0
    names = distinct([*dict.fromkeys(one.label for one in order if one.label)], 15)
    return [
        f'<text class="label a{one.arm % COLOURS}" x="{WIDTH - RIGHT + 8}" y="{y - excess:.1f}">'
        f"{escape(names.get(one.label, ''))}</text>"
        for one, y in zip(order, places, strict=True)
    ]


def _apart(marks: Iterable[tuple[float, str]], px: Callable[[float], float]) -> list[tuple[float, str]]:
    """Ticks whose texts do not run into each other."""
    kept: list[tuple[float, str]] = []
    for value, text in marks:
        if not kept or px(value) - px(kept[-1][0]) > 3.2 * (len(text) + len(kept[-1][1])) + 6:
            kept.append((value, text))
    return kept


# --- one row of a forest --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """The common axis of a forest's rows."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """A place on the axis, in percent of its width; what lies outside is drawn at the edge."""
        return f"{100 * min(max((value - self.low) / (self.high - self.low), 0), 1):.2f}%"


def forest_scale(ends: Iterable[float], *, zero: bool = True, limit: tuple[float, float] = (-1, 1)) -> Scale:
    """An axis that holds all `ends` (and zero), with a little room."""
    values = [value for value in ends if not math.isnan(value)] or [0.0]
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * ((high - low) or 0.1)
    return Scale(max(low - room, limit[0]), min(high + room, limit[1]))


def interval(
    scale: Scale, value: float, these: tuple[float, float] | None, like: tuple[float, float] | None, arm: int
) -> str:
    """One estimate: a mark, a thick line for these tasks, a thin one for tasks like these. Coordinates are percent."""
    out = ['<svg class="interval-plot" width="100%" height="20" aria-hidden="true">']
    if scale.low < 0 < scale.high:
        out.append(f'<line class="zero" x1="{scale.at(0)}" x2="{scale.at(0)}" y1="0" y2="20"/>')
    for kind, ends in (("like", like), ("these", these)):
        if ends:
            x1, x2 = scale.at(ends[0]), scale.at(ends[1])
            out.append(f'<line class="{kind} a{arm % COLOURS}" x1="{x1}" x2="{x2}" y1="10" y2="10"/>')
    out.append(f'<circle class="dot a{arm % COLOURS}" cx="{scale.at(value)}" cy="10" r="4"/></svg>')
    return "".join(out)


def axis(scale: Scale, *, signed: bool = False) -> str:
    """The ticks below a forest, in percent or points."""
    out = ['<svg class="interval-plot axis-row" width="100%" height="18" aria-hidden="true">']
    for value in nice(scale.low, scale.high, 4):
        text = f"{100 * value:+.0f}" if signed and value else f"{100 * value:.0f}"
        out.append(f'<line class="grid" x1="{scale.at(value)}" x2="{scale.at(value)}" y1="0" y2="4"/>')
        out.append(
            f'<text class="tick" x="{scale.at(value)}" y="15" text-anchor="middle">{text.replace("-", "−")}</text>'
        )
    return "".join([*out, "</svg>"])


def nice(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between `low` and `high`, some `about` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _plain(value: float) -> str:
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"
