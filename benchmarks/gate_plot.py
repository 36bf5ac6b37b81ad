"""Draw what the gate saves: `python -m benchmarks.gate_plot results/gate-paths/paths.csv docs/gate.svg`.

Above: mean share of the rollouts of 500 tasks x 4 seeds that the gate uses, and what a fixed-size test of equal power
would, by true drop. Below: the verdicts. Public surface of DeepSWE, margin of 3 points. Needs matplotlib.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aem", "font.family": "sans-serif", "font.size": 10})

from matplotlib import pyplot as plt  # noqa: E402

VERDICTS = {"pass": ("PASS", "#2a9d5c"), "inconclusive": ("INCONCLUSIVE", "#c9ccd1"), "block": ("BLOCK", "#c8443c")}
CENTRED = {"ha": "center", "va": "center_baseline", "fontsize": 8}
COLOUR = "#2b5c8a"


def main(source: Path, target: Path) -> None:
    table = pd.read_csv(source)
    table = table[(table["world"] == "deepswe") & (table["tasks"] == 500) & (table["seeds"] == 4)]
    drops = sorted(table["drop"].unique())
    at = np.arange(len(drops))
    labels = [f"{100 * drop:g}" for drop in drops]
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 6.4), height_ratios=[3, 2], constrained_layout=True)
    rows = table.set_index("drop").loc[drops]
    bars = above.bar(at, 100 * rows["used"], 0.5, color=COLOUR, label="gate")
    for bar, value in zip(bars, 100 * rows["used"], strict=True):
        high, x = value > 12, bar.get_x() + bar.get_width() / 2
        ink = "white" if high else "#222222"
        above.text(x, value / 2 if high else value + 3.5, f"{value:.0f}", color=ink, **CENTRED)
    fixed = 100 * np.minimum(rows["fixed"], 1.0)
    words = "fixed-size test of the same power"
    above.scatter(at, fixed, marker="_", s=700, linewidth=2, color="#222222", label=words)
    above.axhline(100, color="#888888", linewidth=0.8, linestyle=":")
    above.text(-0.45, 101.5, "fixed design, all rollouts", color="#666666", fontsize=8)
    above.set(
        ylabel="rollouts used, % of 500 x 4", xticks=at, xticklabels=labels, ylim=(0, 135), yticks=range(0, 101, 20)
    )
    above.legend(frameon=False, loc="upper right", fontsize=9, ncols=1)
    left = np.zeros(len(drops))
    for name, (words, colour) in VERDICTS.items():
        values = 100 * rows[name].to_numpy()
        below.bar(at, values, 0.6, bottom=left, color=colour, label=words)
        for x, start, value in zip(at, left, values, strict=True):
            if value >= 6:
                ink = "#222222" if name == "inconclusive" else "white"
                below.text(x, start + value / 2, f"{value:.0f}", color=ink, **CENTRED)
        left += values
    below.set(ylabel="verdicts, %", xlabel="true drop, points", xticks=at, xticklabels=labels, ylim=(0, 100))
    below.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
