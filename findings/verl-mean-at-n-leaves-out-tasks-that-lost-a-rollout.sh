#!/usr/bin/env bash
# Guess: when a validation rollout is lost, mean@4 of the task is taken over the other three, or the rollout counts as 0; either way
#   every task is in the mean, and one rule holds for all metrics.
# Version: verl 0.9.1 (numpy 2.4.6)
# Behaviour: metrics are named by the number of rollouts that a task has left, and averaged by name. A task that lost one goes into
#   mean@3 and is gone from mean@4, which is then the mean of the tasks that lost nothing. `acc`, where a reward function gives
#   it, counts the same lost rollout as a wrong answer instead.
# Output: 2 tasks, 4 rollouts each, one of the second task's lost: reward mean@4 1.0 mean@3 0.0; acc mean@4 0.5
# Why here: rollouts that are lost (timeouts, containers that are out of memory) come from the long and hard tasks. The curve of
#   mean@4 rises when more of them are lost, and dips when fewer are. aem keeps every planned rollout in the table, and gives
#   bounds for those that were lost; gate a training with it (`gate:`) instead of reading this curve.
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

tasks, rewards = ["easy"] * 4 + ["hard"] * 3, [1.0] * 4 + [0.0] * 3  # the fourth rollout of the hard task was lost
planned = {("set", "easy"): 4, ("set", "hard"): 4}  # as verl's trainer passes it
found = verl["process_validation_metrics"](
    ["set"] * 7, tasks, {"reward": rewards, "acc": rewards}, expected_acc_counts=planned
)["set"]
reward, acc = ({name: float(value) for name, value in found[key].items()} for key in ("reward", "acc"))
print(
    "2 tasks, 4 rollouts each, one of the second task's lost: "
    f"reward mean@4 {reward['mean@4']} mean@3 {reward['mean@3']}; acc mean@4 {acc['mean@4']}"
)
assert (reward["mean@4"], reward["mean@3"], acc["mean@4"]) == (1.0, 0.0, 0.5)
EOF
