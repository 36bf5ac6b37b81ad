#!/usr/bin/env bash
# Guess: verl's validation metric best@4 over 4 rollouts of a task is the best of the four; with rewards 0 and 1 it is pass@4.
# Version: verl 0.9.1 (numpy 2.4.6)
# Behaviour: best@n is the mean over bootstrap samples of n rollouts drawn *with* replacement from the n. A task that one rollout of
#   four solved has best@4 = 1 - (3/4)^4 = 0.68, not 1; worst@4 of one that three solved is 0.32, not 0.
# Output: 1 of 4 solved: best@4 0.69, pass@4 1.0; 1 of 8 solved: best@8 0.65, pass@8 1.0
# Why here: the number is logged as val-core/.../best@N/mean and compared with pass@N of papers and of other harnesses, which it
#   falls short of by up to 0.37 a task. The gap is largest for tasks that are solved rarely, so a training that makes the same
#   tasks more reliable raises best@N although pass@N stays. aem computes pass@k without replacement.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" verl==0.9.1
"$work/venv/bin/python" - "$work" << 'EOF'
import ast
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Callable
from zipfile import ZipFile

import numpy as np

# verl's own functions, taken out of its module, whose other imports (Ray, torch, ...) they do not need
(wheel,) = Path(sys.argv[1]).glob("*.whl")
module = ast.parse(ZipFile(wheel).read("verl/trainer/ppo/metric_utils.py"))
names = {"bootstrap_metric", "calc_maj_val", "process_validation_metrics"}
module.body = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name in names]
verl = {"np": np, "Any": Any, "Callable": Callable, "defaultdict": defaultdict, "partial": partial}
exec(compile(module, "metric_utils.py", "exec"), verl)

best = {}
for n in (4, 8):
    rewards = [1.0] + [0.0] * (n - 1)
    metrics = verl["process_validation_metrics"](["set"] * n, ["task"] * n, {"reward": rewards})["set"]["reward"]
    best[n] = float(metrics[f"best@{n}/mean"])
print("; ".join(f"1 of {n} solved: best@{n} {value:.2f}, pass@{n} 1.0" for n, value in best.items()))
assert all(abs(value - (1 - (1 - 1 / n) ** n)) < 0.05 for n, value in best.items())
EOF
