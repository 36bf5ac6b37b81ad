"""Which neighbours of a public leaderboard can be told apart, and how many seeds would it take?

    python -m benchmarks.leaderboard ../shared/data/verified-leaderboard.csv.gz docs/figures/leaderboard.svg

Prints the tables of docs/leaderboard.md and draws its figure. Any outcomes that `aem compare` reads will do, with
one rollout a task and submission. Needs matplotlib.
"""

import re
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aem", "font.family": "sans-serif", "font.size": 10})

from matplotlib import pyplot as plt  # noqa: E402

from aem_harness.harness.compare.outcomes import load  # noqa: E402
from aem_harness.harness.compare.pairs import all_pairs  # noqa: E402
from aem_harness.harness.compare.plan import plan  # noqa: E402
from aem_harness.harness.compare.surface import PUBLIC  # noqa: E402

# Left out: one whose public outcomes contradict its stated rate, one that reports 441 of the 500 tasks.
LEFT_OUT = ("20250720_mini-v0.0.0-claude-3-7-sonnet-20250219", "20260901_mini-v2.4.2_gemini-3-5-flash")
QUESTIONS = ("difference, these tasks", "difference, tasks like these")


def ranked(table: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """Rates (fractions) by submission, best first; and every pair of them, keyed (better, worse)."""
    table = table[~table["arm"].isin(LEFT_OUT)]
    rates = table.groupby("arm")["resolved"].mean().sort_values(ascending=False, kind="stable")
    place = {arm: number for number, arm in enumerate(rates.index)}
    pairs = all_pairs(table)
    swap = pairs["baseline"].map(place) > pairs["candidate"].map(place)
    better = pairs["baseline"].where(~swap, pairs["candidate"])
    worse = pairs["candidate"].where(~swap, pairs["baseline"])
    gap = pairs["difference"].abs()
    columns = {"better": better, "worse": worse, "gap": gap, "p": pairs["p_these"], "p_like": pairs["p_like"]}
    return rates, pd.DataFrame(columns).set_index(["better", "worse"])


def reach(rates: pd.Series, pairs: pd.DataFrame, column: str) -> list[int]:
    """For each place from the top: how many places below stand before the first that differs at 5 %."""
    names = list(rates.index)
    p = pairs[column].to_dict()
    return [
        next((n - i - 1 for n in range(i + 1, len(names)) if p[names[i], names[n]] < 0.05), len(names) - 1 - i)
        for i in range(len(names))
    ]


def seeds_for(gap: float, rate: float) -> tuple[str, str]:
    """Seeds a submission that show a gap with 80 % power: for these tasks, for tasks like these; "none" if none do."""
    components = PUBLIC["temperature-0"].model_copy(update={"rate": rate})
    needed = plan(components, difference=gap).needed if gap else dict.fromkeys(QUESTIONS)
    these, like = (str(needed[question] or "none") for question in QUESTIONS)
    return these, like


def short(name: str) -> str:
    return re.sub(r"^\d{8}_", "", name)[:44]


def main(source: Path, figure: Path) -> None:
    rates, pairs = ranked(load([source]).table)
    names = list(rates.index)
    neighbours = pairs.loc[list(pairwise(names))]
    print(f"{len(names)} submissions, {len(pairs)} pairs\n")
    print(
        "| place | submission | resolved, % | gap to next, points | p | seeds, these tasks | seeds, tasks like these |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|")
    for place, (name, below) in enumerate(pairwise(names[:11]), start=1):
        pair = pairs.loc[(name, below)]
        these, like = seeds_for(pair["gap"], rates[below])
        gap = f"{100 * pair['gap']:.1f} | {pair['p']:.2f}"
        print(f"| {place} | {short(name)} | {100 * rates[name]:.1f} | {gap} | {these} | {like} |")
    print()
    for words, column in (("these tasks", "p"), ("tasks like these", "p_like")):
        told = int((neighbours[column] < 0.05).sum())
        places = reach(rates, pairs, column)
        print(f"{words}: {told} of {len(neighbours)} neighbours differ at 5 %; the first cannot be told from the next")
        print(
            f"  {places[0]}, a submission of the upper half from the next {np.median(places[: len(places) // 2]):.0f}"
        )
    print("\n| gap, points | pairs | differ at 5 %, these tasks | tasks like these |\n|---|---:|---:|---:|")
    edges = [0, 0.01, 0.02, 0.03, 0.05, 0.1, 1]
    for low, high in pairwise(edges):
        part = pairs[(pairs["gap"] >= low) & (pairs["gap"] < high)]
        told = [f"{100 * (part[column] < 0.05).mean():.0f} %" for column in ("p", "p_like")]
        label = f"{100 * low:g} to {100 * high:g}" if high < 1 else f"{100 * low:g} and more"
        print(f"| {label} | {len(part)} | {told[0]} | {told[1]} |")
    draw(rates, pairs, figure)


def draw(rates: pd.Series, pairs: pd.DataFrame, target: Path) -> None:
    """Every submission at its rate, with the stretch of the places below that it cannot be told from."""
    picture, axes = plt.subplots(figsize=(7.2, 4.6), constrained_layout=True)
    at = np.arange(len(rates))
    values = 100 * rates.to_numpy()
    for column, colour, words in (("p_like", "#c9d6e6", "tasks like these"), ("p", "#2b5c8a", "these tasks")):
        low = [values[min(i + n, len(values) - 1)] for i, n in enumerate(reach(rates, pairs, column))]
        axes.vlines(at, low, values, color=colour, linewidth=2.2, label=f"cannot be told from, {words}")
    axes.plot(at, values, ".", color="#222222", markersize=3, label="submission")
    axes.set(xlabel="place", ylabel="resolved, %", xlim=(-1, len(rates)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
