"""How sure a policy is, turn by turn: mean response entropy of each arm, on the terminal and as an SVG file.

python examples/entropy_by_turn.py results/grpo results/aem --out entropy.svg
"""

from pathlib import Path
from typing import Annotated

import typer

from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.outcomes import load
from aem_harness.harness.compare.records import Curve
from aem_harness.harness.report import plots

BARS = "▁▂▃▄▅▆▇█"
STYLE = """<style>
.plot { background: #fff; font: 11px sans-serif; fill: #555 }
.grid { stroke: #ddd } .axis, .tick { text-anchor: middle } .tick[text-anchor=end] { text-anchor: end }
.line { fill: none; stroke-width: 2 } .band { opacity: .15 }
.line.a0 { stroke: #5b6b7f } .a0:not(.line) { fill: #5b6b7f }
.line.a1 { stroke: #c2410c } .a1:not(.line) { fill: #c2410c }
</style>"""
NATS = '<text class="tick" x="20" y="9">nats</text>'


def main(
    arms: Annotated[list[str], typer.Argument(help="Two runs, as `aem compare` takes them.")],
    out: Annotated[Path | None, typer.Option(help="SVG file to write.")] = None,
) -> None:
    """Mean token entropy of the responses at each turn (nats), over the rollouts that reach it, with its interval."""
    curves = [curve for curve in compare(load(arms)).curves if curve.kind == "response entropy by turn"]
    most = max((point.value for curve in curves for point in curve.points), default=0) or 1.0
    turns = max((len(curve.points) for curve in curves), default=0)
    width = max((len(one) for one in ("  tasks", *(curve.arm for curve in curves))), default=0)
    print(f"{'turn':<{width}}  " + "".join(f"{turn:>7}" for turn in range(1, turns + 1)))
    for curve in curves:
        values = [point.value for point in curve.points]
        bars = "".join(BARS[min(int(len(BARS) * value / most), len(BARS) - 1)] for value in values)
        print(f"{curve.arm:<{width}}  " + "".join(f"{value:7.3f}" for value in values) + f"  {bars}")
        for name, cells in (
            ("low", (f"{one.low:7.3f}" for one in curve.points)),
            ("high", (f"{one.high:7.3f}" for one in curve.points)),
            ("tasks", (f"{one.tasks:7}" for one in curve.points)),
        ):
            print(f"{'  ' + name:<{width}}  " + "".join(cells))
    print("low, high: 95 % interval, these tasks; tasks: those with a rollout at the turn")
    if out:
        out.write_text(picture(curves))


def picture(curves: list[Curve]) -> str:
    """The plot of the report, with colours of its own."""
    series = [
        plots.Series(curve.arm, number, tuple((p.x, p.value, p.low, p.high) for p in curve.points))
        for number, curve in enumerate(curves)
    ]
    ticks = [(turn, f"{turn:.0f}") for turn in sorted({point[0] for one in series for point in one.points})]
    svg = plots.lines(series, title="response entropy by turn", x="turn", percent=False, ticks=ticks)
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="660" height="405">{STYLE}{NATS}{rest}\n'


if __name__ == "__main__":
    typer.run(main)
