"""Coverage of every interval and false positives of every test: the tables of docs/statistics.md.

python -m benchmarks.coverage [REPETITIONS [PART]]        (4000: about 15 minutes on one core; parts: PARTS below)
"""

import sys
from collections.abc import Iterator

from aem_harness.harness.compare.plan import VERIFIED_REPOS
from tests.compare import scenarios as sim

FEW = {"a/a": 10, "b/b": 6, "c/c": 4}
SEVEN, TWO = {"a/a": 7}, {"a/a": 100, "b/b": 20}
REPOSITORIES = (
    (60, 60), (100, 20), (231, 75), (40, 40, 40), (231, 75, 44), (200, 4, 2), (24,) * 5, (231, 75, 44, 34, 32),
    tuple(VERIFIED_REPOS.values()),
)  # fmt: skip
UNEQUAL = ((1, 2, 3, 4), (2, 4, 8))
SEEDS = ((1, 1), (2, 2), (4, 4), (8, 8), (1, 4), ((3, 4), (3, 4)), UNEQUAL)


# tasks, seeds, share gained outright, share solved half of the time, share always solved: weak and saturated models
FEW_MOVED = (
    (100, 4, 0.01, 0.0, 0.0), (100, 16, 0.01, 0.0, 0.0), (120, 4, 0.015, 0.0, 0.95), (500, 4, 0.004, 0.0, 0.0),
    (500, 4, 0.01, 0.0, 0.0), (500, 16, 0.004, 0.05, 0.5), (100, 16, 0.02, 0.05, 0.0), (500, 2, 0.006, 0.0, 0.98),
    (500, 4, 0.015, 0.0, 0.0),
)  # fmt: skip


def intervals(reps: int) -> Iterator[tuple[str, sim.Share]]:
    for seeds in SEEDS:
        yield f"difference, these tasks, K {seeds}", sim.difference_these(reps, seeds, task_spread=0.1)
    for seeds in SEEDS:
        yield (
            f"difference, these tasks, 20 tasks, K {seeds}",
            sim.difference_these(reps, seeds, repos=FEW, task_spread=0.1),
        )
    for tasks in (3, 7):
        for seeds in ((1, 1), (2, 2), (4, 4), (1, 4)):
            covered = sim.difference_these(reps, seeds, repos={"a/a": tasks}, task_spread=0.2)
            yield f"difference, these tasks, {tasks} tasks, K {seeds}", covered
    for seeds in ((1, 1), (4, 4), UNEQUAL):
        for spread in (0.0, 0.05, 0.1, 0.2):
            covered = sim.difference_like(reps, seeds, repo_spread=spread, task_spread=0.1)
            yield f"difference, like these, 12 repositories, repository sd {spread}, K {seeds}", covered
        covered = sim.difference_like(reps, seeds, repos=FEW, repo_spread=0.1)
        yield f"difference, like these, 20 tasks of 3 repositories, K {seeds}", covered
    for tasks, seeds, gained, noise, rate in FEW_MOVED:
        for one_repo in (False, True):
            share = sim.difference_few_moved(
                reps, tasks, seeds, gained=gained, noise=noise, rate=rate, one_repo=one_repo
            )
            repos = "1 repository" if one_repo else "12 repositories"
            told = f"{100 * gained:g} % of {tasks} tasks gained outright, {100 * rate:g} % always solved"
            yield f"difference, like these, {told}, K {seeds}, {repos}", share
    for n in (500, 50, 20):
        yield f"difference, Tango, {n} tasks, K (1, 1)", sim.difference_tango(reps, repos={"a/a": n}, task_spread=0.3)
    for fraction, question in ((1.0, "these"), (0.0, "like these, tasks independent")):
        covered = sim.difference_bootstrap(reps, (4, 4), fraction, task_spread=0.2)
        yield f"difference, bootstrap, {question}, K (4, 4)", covered
    for rate in (0.42, 0.03, 0.98):
        for seeds in (2, 4):
            yield f"rate {rate}, these tasks, 7 tasks, K {seeds}", sim.rate_these(reps, seeds, rate=rate, repos=SEVEN)
        for seeds in (1, 4):
            yield f"rate {rate}, these tasks, K {seeds}", sim.rate_these(reps, seeds, rate=rate)
            yield f"rate {rate}, like these, independent, K {seeds}", sim.rate_like(reps, seeds, rate)
            yield f"rate {rate}, like these, 30 tasks, K {seeds}", sim.rate_like(reps, seeds, rate, repos={"a/a": 30})
    for n, k in ((4, 2), (8, 4), (16, 8), (8, 8)):
        yield f"pass@{k} of {n}, these tasks", sim.pass_k_these(reps, n, k)
    for arms, spread in ((5, 0.0), (20, 0.0), (10, 0.05)):
        covered, bias = sim.best_interval(max(reps // 10, 100), arms, 4, spread)
        told = ", ".join(f"{name} {100 * value:+.2f}" for name, value in bias.items())
        yield f"best of {arms}, spread {spread}, K 4 (bias in points: {told})", covered


def repositories(reps: int) -> Iterator[tuple[str, sim.Share]]:
    for sizes in REPOSITORIES:
        repos = {f"r{number}/r": size for number, size in enumerate(sizes)}
        for seeds in (1, 4):
            for spread in (0.0, 0.05, 0.1, 0.2):
                covered = sim.difference_like(reps, (seeds, seeds), repos=repos, repo_spread=spread, task_spread=0.1)
                told = f"{len(sizes)} repositories of {', '.join(map(str, sizes[:5]))} tasks, sd {spread}, K {seeds}"
                yield f"difference, like these, {told}", covered


def alphas(reps: int) -> Iterator[tuple[str, sim.Share]]:
    for name, repos in (("two", TWO), ("12", None)):
        share = sim.clustered_rejects(reps, (4, 4), alpha=0.005, repos=repos, repo_spread=0.1, task_spread=0.2)
        yield f"clustered t at 0.5 %, as Holm asks of ten, {name} repositories, K 4", share


def tests(reps: int) -> Iterator[tuple[str, sim.Share]]:
    for seeds in SEEDS:
        yield f"permutation, exact, K {seeds}", sim.permutation_rejects(reps, seeds)
        yield f"permutation, mid-p, K {seeds}", sim.permutation_rejects(reps, seeds, mid=True)
        yield f"clustered t, repository sd 0.05, K {seeds}", sim.clustered_rejects(reps, seeds, repo_spread=0.05)
    for seeds in ((1, 1), (4, 4)):
        yield f"non-inferiority at the margin, K {seeds}", sim.noninferiority_passes(reps, seeds, -0.03)
    yield "Holm, any of 5 candidates, K 4", sim.holm_rejects(reps, 5, 4)
    held, differs = sim.bounds_turn(reps, 4, 0.02)
    yield "A/A with 2 % of rollouts lost, K 4", differs
    yield "bounds hold the full difference", held


PARTS = {"intervals": intervals, "repositories": repositories, "tests": tests, "alphas": alphas}


def main() -> None:
    reps = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    for part in sys.argv[2:] or PARTS:
        title = "covers" if part in ("intervals", "repositories") else "rejects"
        print(f"\n| scenario | {title} | nominal | Monte-Carlo errors off |\n|---|---|---|---|")
        for name, found in PARTS[part](reps):
            off = (found.share - found.nominal) / found.error if found.error else 0.0
            print(f"| {name} | {100 * found.share:.1f} % | {100 * found.nominal:.1f} % | {off:+.1f} |", flush=True)


if __name__ == "__main__":
    main()
