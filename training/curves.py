"""Training curves over seeds: metrics of many runs as one table, with intervals, and as one figure.

    python -m aem_harness.training.curves results/training docs/figures tiny-grpo tiny-aem

writes curves.csv, curves.svg and curves.md; differences are to the first arm. An arm's runs lie in folders
`<name>-seed<k>`. Intervals are 95 % t-intervals over seeds; differences between arms are
paired by seed (same warm start, same tasks in the same order). With five seeds they are wide, and say so.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aem_harness.harness.errors import DataError
from aem_harness.training.folder import read_metrics

CURVES = (
    "reward",
    "response_entropy",
    "gated_share",
    "negative_token_fraction",
    "alpha_std",
    "test_greedy",
    "test_sampled",
)
EDGE = 10  # steps that "early" and "late" average over


@dataclass(frozen=True)
class MeanInterval:
    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if self.n > 1 else "")


Curves = Mapping[str, Mapping[int, Mapping[str, Mapping[int, float]]]]  # arm -> seed -> metric -> step -> value


def collect(runs: Path, arms: Sequence[str]) -> Curves:
    """The curves of every finished run of these arms; DataError where an arm has none."""
    by_arm: dict[str, dict[int, dict[str, dict[int, float]]]] = {}
    for arm in arms:
        by_arm[arm] = {}
        for folder in sorted(runs.glob(f"{arm}-seed*")):
            if not (folder / "checkpoint").is_dir():
                continue
            seed = int(folder.name.removeprefix(f"{arm}-seed"))
            curves: dict[str, dict[int, float]] = defaultdict(dict)
            for line in read_metrics(folder / "metrics.jsonl"):
                for name in CURVES:
                    if name in line:
                        curves[name][line["step"]] = float(line[name])
            by_arm[arm][seed] = curves
        if not by_arm[arm]:
            raise DataError(f"no finished run of {arm} in {runs}")
    return by_arm


def t_interval(values: Iterable[float]) -> MeanInterval:
    """Mean and 95 % t-interval; with one value the interval is unbounded."""
    from scipy.stats import t

    array = np.asarray(list(values), dtype=float)
    if len(array) < 2:
        return MeanInterval(float(array.mean()), -np.inf, np.inf, len(array))
    half = float(t.ppf(0.975, len(array) - 1)) * array.std(ddof=1) / np.sqrt(len(array))
    return MeanInterval(float(array.mean()), float(array.mean() - half), float(array.mean() + half), len(array))


def summarise(curves: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """One run in a few numbers: success at the end and over training, entropy and other signals early and late."""

    def edges(name: str) -> tuple[float, float]:
        values = [curves[name][step] for step in sorted(curves[name])]
        return float(np.mean(values[:EDGE])), float(np.mean(values[-EDGE:]))

    reward = list(curves["reward"].values())
    summary = {"reward_mean": float(np.mean(reward)), "reward_late": edges("reward")[1]}
    for name in ("test_greedy", "test_sampled"):
        summary[name] = curves[name][max(curves[name])]
    for name in ("response_entropy", "gated_share", "negative_token_fraction"):
        summary[f"{name}_early"], summary[f"{name}_late"] = edges(name)
    return summary


def table(curves: Curves, baseline: str) -> str:
    """Markdown: every number of `summarise` for every arm, and its paired difference to the baseline."""
    summaries = {arm: {seed: summarise(run) for seed, run in runs.items()} for arm, runs in curves.items()}
    names = list(next(iter(summaries[baseline].values())))
    lines = [f"| | {' | '.join(f'{arm} (n={len(runs)})' for arm, runs in summaries.items())} |"]
    lines.append("|---|" + "---|" * len(summaries))
    for name in names:
        cells = [str(t_interval(run[name] for run in runs.values())) for runs in summaries.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in names:
        cells = []
        for arm, runs in summaries.items():
            shared = sorted(set(runs) & set(summaries[baseline]))
            differences = [runs[seed][name] - summaries[baseline][seed][name] for seed in shared]
            cells.append("" if arm == baseline else str(t_interval(differences)))
        lines.append(f"| {name}, minus {baseline} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_csv(curves: Curves, file: Path) -> None:
    """One line a run and step: arm, seed, step, and every metric that was logged there."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["arm", "seed", "step", *CURVES])
        for arm, runs in curves.items():
            for seed, run in runs.items():
                for step in sorted(run["reward"]):
                    values = (run[name].get(step) for name in CURVES)
                    writer.writerow([arm, seed, step, *("" if v is None else f"{v:.5g}" for v in values)])


def draw(curves: Curves, file: Path, *, window: int = 5) -> None:
    """The figure: success, response entropy, gate and negative tokens by step; mean and 95 % interval over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "test_sampled": "held-out success (sampled)",
        "reward": "training success",
        "response_entropy": "response entropy (nats)",
        "gated_share": "share of groups with closed gate",
        "negative_token_fraction": "tokens with negative advantage",
        "alpha_std": "spread of alpha",
    }
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.5), sharex=True, layout="constrained")
    for axis, (name, title) in zip(axes.flat, panels.items(), strict=True):
        for arm, runs in curves.items():
            steps = sorted(set.intersection(*(set(run[name]) for run in runs.values())))
            values = np.array([[run[name][step] for step in steps] for run in runs.values()])
            if len(steps) > 3 * window:
                values = np.array([np.convolve(row, np.ones(window) / window, mode="valid") for row in values])
                steps = steps[window - 1 :]
            bounds = [t_interval(column) for column in values.T]
            (line,) = axis.plot(steps, [b.mean for b in bounds], label=f"{arm} (n={len(runs)})", linewidth=1.5)
            if len(runs) > 1:
                low, high = [b.low for b in bounds], [b.high for b in bounds]
                axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    axes.flat[0].legend(fontsize=8, frameon=False)
    # No dates and stable ids: the same runs give the same file.
    with pyplot.rc_context({"svg.hashsalt": "aem"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: Sequence[str]) -> None:
    runs, out, arms = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    out.mkdir(parents=True, exist_ok=True)
    curves = collect(runs, arms)
    write_csv(curves, out / "curves.csv")
    draw(curves, out / "curves.svg")
    (out / "curves.md").write_text(table(curves, baseline=arms[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
