"""A small table of outcomes: a baseline, its equal, and a candidate that is clearly worse."""

from pathlib import Path
from random import Random

TASKS, SEEDS = 60, 2
RATES = {"base": 0.6, "same": 0.6, "worse": 0.2}


def write_table(path: Path) -> Path:
    """`path` as an outcomes CSV of the three arms."""
    draw = Random(7)
    lines = ["arm,instance_id,seed,resolved"]
    for arm, rate in RATES.items():
        for task in range(TASKS):
            lines += [f"{arm},demo__demo-{task},{seed},{int(draw.random() < rate)}" for seed in range(SEEDS)]
    path.write_text("\n".join(lines) + "\n")
    return path
