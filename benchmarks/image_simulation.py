"""A night of 500 images and 8 seeds, simulated: makespan, disk and bytes on the link, by budget, order and policy.

    python -m benchmarks.image_simulation [--rows FILE]

What decides is `harness.run.shelf`, as in a real run; only clock, link and agents are simulated. Sizes: all 500 images
of SWE-bench Verified take about 280 GB unpacked (inspect_evals issue 926). How that is spread is an assumption: 0.9 GB
that all share, one environment for each of the 80 pairs of repository and version, and 0.4 GB an image of its own;
three unpacked bytes are one on the link. Rollouts take 300 s in the median, log-normal with sigma 0.7,
also an assumption. `--rows` takes the pairs from the dataset's own rows.
"""

import argparse
import gzip
import heapq
import json
import math
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aem_harness.harness.run.shelf import Shelf

GB = 1e9
TOTAL, BASE, OWN, PACKED = 280 * GB, 0.9 * GB, 0.4 * GB, 3.0
IMAGES, SEEDS, WORKERS = 500, 8, 64
# Rows of Verified by repository, and the versions among them.
REPOSITORIES = {
    "django": (231, 9), "sympy": (75, 12), "sphinx": (44, 15), "matplotlib": (34, 6), "scikit-learn": (32, 4),
    "astropy": (22, 6), "xarray": (22, 4), "pytest": (19, 10), "pylint": (10, 5), "requests": (8, 7), "seaborn": (2, 1),
    "flask": (1, 1),
}  # fmt: skip


def environments(rows: Path | None) -> list[str]:
    """The pair of repository and version of each image."""
    if rows is None:
        return [f"{name} {n % versions}" for name, (count, versions) in REPOSITORIES.items() for n in range(count)]
    with gzip.open(rows, "rt") if rows.suffix == ".gz" else rows.open() as file:
        return [f"{row['repo']} {row['version']}" for row in map(json.loads, file)]


def images(rows: Path | None) -> dict[str, dict[str, int]]:
    """The layers of each image, with their unpacked sizes."""
    pairs = environments(rows)
    each = (TOTAL - BASE - len(pairs) * OWN) / len(set(pairs))
    dice = random.Random(1)
    own = [dice.lognormvariate(0, 0.5) for _ in pairs]
    scale = len(pairs) * OWN / sum(own)
    return {
        f"image-{n}": {"base": int(BASE), pair: int(each), f"own-{n}": int(size * scale)}
        for n, (pair, size) in enumerate(zip(pairs, own, strict=True))
    }


@dataclass
class Night:
    """One simulated run. `ahead` False: fetch only what a worker waits for."""

    layers: dict[str, dict[str, int]]
    order: Sequence[tuple[str, float]]  # image and seconds of each rollout
    budget: float | None
    rate: float  # bytes per second on the link
    ahead: bool = True
    shelf: Shelf = field(init=False)
    fetched: float = 0.0

    def run(self) -> float:
        """Seconds until the last rollout has ended."""
        self.shelf = Shelf(budget=self.budget)
        waiting, begun, now = deque(self.order), list[tuple[str, float]](), 0.0
        events: list[tuple[float, int, str, str]] = []
        working, loading, number = Counter[str](), False, 0
        while waiting or begun or events:
            while waiting and len(begun) + working.total() < WORKERS:
                begun.append(waiting.popleft())
            for item in [one for one in begun if one[0] in self.shelf.present]:
                begun.remove(item)
                self.shelf.take(item[0])
                working[item[0]] += 1
                number += 1
                heapq.heappush(events, (now + item[1], number, "worked", item[0]))
            if not loading and (name := self._fetch([*working, *(one[0] for one in begun)], waiting)):
                missing = sum(size for layer, size in self.layers[name].items() if layer not in self._here())
                upcoming = [*working, *(one[0] for one in begun), *(one[0] for one in waiting)]
                if self._fits(name, missing / PACKED, upcoming):
                    loading, number = True, number + 1
                    self.fetched += missing / PACKED
                    heapq.heappush(events, (now + missing / PACKED / self.rate, number, f"{missing}", name))
            if not events:
                raise RuntimeError("nothing moves any more")
            now, _, kind, name = heapq.heappop(events)
            if kind != "worked":
                loading = False
                self.shelf.arrived(name, self.layers[name], float(kind) / PACKED)
            else:
                working[name] -= 1
                self.shelf.release(name)
                if not working[name]:
                    del working[name]
        return now

    def _fetch(self, active: list[str], waiting: "deque[tuple[str, float]]") -> str | None:
        names = [*active, *(name for name, _ in waiting)] if self.ahead else active
        move = self.shelf.next(names)
        for name in move.evict:
            self.shelf.gone(name)
        return move.fetch

    def _fits(self, name: str, compressed: float, upcoming: list[str]) -> bool:
        """What the flow of a run does when a pull says how large its image is (harness/run/flow.py)."""
        self.shelf.grew(name, compressed)
        if self.shelf.budget is None or self.shelf.used <= self.shelf.budget:
            return True
        evict = self.shelf.relief(upcoming)
        for gone in evict or ():
            self.shelf.gone(gone)
        alone = not self.shelf.held and len(self.shelf.coming) == 1
        if evict is None and not alone and self.shelf.cannot_fit(name, compressed):
            self.shelf.not_coming(name)
            return False
        return True

    def _here(self) -> set[str]:
        return {layer for name in self.shelf.present for layer in self.layers[name]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, metavar="FILE")
    rows = parser.parse_args().rows
    layers = images(rows)
    seconds = random.Random(2)
    took = {(name, seed): seconds.lognormvariate(math.log(300), 0.7) for name in layers for seed in range(SEEDS)}
    together = [(name, took[name, seed]) for name in layers for seed in range(SEEDS)]
    by_seed = [(name, took[name, seed]) for seed in range(SEEDS) for name in layers]
    drawn = random.Random(3).sample(by_seed, len(by_seed))
    agents = sum(took.values()) / WORKERS
    print(
        f"agents alone {agents / 3600:.2f} h; all images {TOTAL / GB:.0f} GB, {TOTAL / PACKED / GB:.0f} GB on the link"
    )
    print("link MB/s | order | fetched ahead | budget GB | makespan h | of bound | peak GB | on the link GB")
    for rate in (50e6, 5e6):
        bound = max(agents, TOTAL / PACKED / rate)
        for label, order, ahead, budget in (
            ("seed by seed", by_seed, False, None),
            ("seed by seed", by_seed, True, None),
            ("instance by instance", together, True, None),
            ("instance by instance", together, True, 140 * GB),
            ("instance by instance", together, True, 70 * GB),
            ("instance by instance", together, True, 30 * GB),
            ("a gate's (drawn)", drawn, True, 140 * GB),
            ("a gate's (drawn)", drawn, True, 70 * GB),
        ):
            night = Night(layers, order, budget, rate, ahead)
            took_all = night.run()
            cells = [f"{rate / 1e6:.0f}", label, "yes" if ahead else "no", f"{budget / GB:.0f}" if budget else "none"]
            cells += [f"{took_all / 3600:.2f}", f"{took_all / bound:.3f}", f"{night.shelf.peak / GB:.0f}"]
            print(" | ".join([*cells, f"{night.fetched / GB:.0f}"]), flush=True)


if __name__ == "__main__":
    main()
