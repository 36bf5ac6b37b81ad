"""Draw the figures of docs/pictures.md: `python -m benchmarks.pictures docs/figures`. Needs matplotlib."""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aem", "font.family": "sans-serif", "font.size": 10})

from matplotlib import pyplot as plt  # noqa: E402

from aem_harness.harness.compare.plan import plan  # noqa: E402
from aem_harness.harness.compare.surface import PUBLIC  # noqa: E402

TASKS, GAIN = 500, 0.014  # SWE-bench Verified; what the AEM paper reports
THESE, LIKE = "these tasks", "tasks like these"
BLUE, PALE, RED = "#2b5c8a", "#9db8d6", "#c8443c"


def save(figure, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def bare(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def luck(target: Path, repetitions: int = 20_000) -> None:
    """How far two runs of one and the same checkpoint differ: TASKS tasks of DeepSWE's surface, 1 and 4 seeds."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.25, 0.34, TASKS)
    figure, axes = plt.subplots(figsize=(7.2, 3.2), constrained_layout=True)
    bins = np.arange(-7.1, 7.2, 0.2)
    for seeds, colour in ((1, PALE), (4, BLUE)):
        runs = rng.binomial(seeds, p, (2, repetitions, TASKS)).mean(axis=2) / seeds
        points = 100 * (runs[1] - runs[0])
        share = 100 * (points >= 100 * GAIN).mean()
        name = f"{seeds} seed" + "s" * (seeds > 1)
        words = f"{name}: SD {points.std():.1f} points, {share:.0f} % at +1.4 or more"
        axes.hist(points, bins=bins, color=colour, alpha=0.75, label=words, density=True)
        print(words)
    axes.axvline(100 * GAIN, color=RED, linewidth=1.5, label="+1.4 points")
    axes.set(xlabel="second run minus first run of the same checkpoint, points", yticks=[])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    bare(axes)
    axes.spines["left"].set_visible(False)
    save(figure, target)


def seeds_needed(target: Path) -> None:
    """The smallest difference that is detected with 80 % power, by seeds per arm, for both questions."""
    found = plan(PUBLIC["deepswe"], tasks=TASKS)
    figure, axes = plt.subplots(figsize=(7.2, 3.6), constrained_layout=True)
    seeds = [row.seeds for row in found.rows]
    for question, colour in ((LIKE, PALE), (THESE, BLUE)):
        values = [100 * row.detectable[question] for row in found.rows]
        axes.plot(seeds, values, "o-", color=colour, label=question)
        for x, value in zip(seeds, values, strict=True):
            above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(f"{value:.1f}", (x, value), **above)
    axes.axhline(100 * GAIN, color=RED, linewidth=1.2, linestyle="--", label="+1.4 points")
    axes.set(xscale="log", xticks=seeds, xticklabels=seeds, xlabel="seeds per arm")
    axes.set(ylabel="detected with 80 % power, points")
    axes.minorticks_off()
    axes.set_ylim(0, 14.5)
    axes.legend(frameon=False)
    bare(axes)
    save(figure, target)


def tasks_needed(target: Path) -> None:
    """The same by number of tasks at four seeds: more tasks of the same repositories stop helping."""
    figure, axes = plt.subplots(figsize=(7.2, 3.4), constrained_layout=True)
    numbers = [25, 50, 100, 200, 500, 1000, 2000]
    for question, colour in ((LIKE, PALE), (THESE, BLUE)):
        rows = [next(row for row in plan(PUBLIC["deepswe"], tasks=n).rows if row.seeds == 4) for n in numbers]
        axes.plot(numbers, [100 * row.detectable[question] for row in rows], "o-", color=colour, label=question)
    axes.set(xscale="log", xticks=numbers, xticklabels=numbers, xlabel="tasks, 4 seeds per arm")
    axes.set(ylabel="detected with 80 % power, points", ylim=(0, None))
    axes.minorticks_off()
    axes.legend(frameon=False)
    bare(axes)
    save(figure, target)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    luck(folder / "luck.svg")
    seeds_needed(folder / "seeds.svg")
    tasks_needed(folder / "tasks.svg")
