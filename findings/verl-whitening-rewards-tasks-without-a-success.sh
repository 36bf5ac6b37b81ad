#!/usr/bin/env bash
# Guess: a group whose rollouts all failed has advantage 0 under any estimator with a group baseline: nothing to learn from.
# Version: verl 0.9.1 (torch 2.13.0)
# Behaviour: reinforce_plus_plus_baseline takes the group's mean off and then whitens over the *tokens* of the batch, which takes off
#   another mean. Long failures weigh more in it than short successes, so it is negative, and what has no signal (exactly 0 before)
#   comes out positive: every token of every failed rollout of such a task is reinforced. grpo gives the same batch 0.
# Output: a task without a success: reinforce_plus_plus_baseline +0.50, grpo +0.00 (successes of the other task: +1.99, +0.87)
# Why here: in agent training failures run to the limits and are many times longer than successes, and most tasks of a batch have no
#   success at first. The push is half of what a failure is punished with here. The metrics show only that advantages have mean 0.
#   aem's own bases give exactly 0 where all rewards of a task are equal; its dry run for verl advises against this estimator.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$work/venv/bin/pip" download --quiet --no-deps --dest "$work" verl==0.9.1
"$work/venv/bin/python" - "$work" << 'EOF'
import ast
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional
from zipfile import ZipFile

import numpy as np
import torch

(wheel,) = Path(sys.argv[1]).glob("*.whl")
sources = ZipFile(wheel)


def functions(file, names, scope):
    """verl's own functions, taken out of a module whose other imports they do not need."""
    module = ast.parse(sources.read(file))
    module.body = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name in names]
    for node in module.body:
        node.decorator_list.clear()  # which only enter them in verl's registry
    exec(compile(module, file, "exec"), scope)
    return SimpleNamespace(**scope)


named = {"torch": torch, "np": np, "defaultdict": defaultdict, "Optional": Optional, "Any": Any, "AlgoConfig": object}
masked = functions("verl/utils/torch_functional.py", {"masked_whiten", "masked_mean", "masked_var", "masked_sum"}, dict(named))
verl = functions(
    "verl/trainer/ppo/core_algos.py",
    {"compute_reinforce_plus_plus_baseline_outcome_advantage", "compute_grpo_outcome_advantage"},
    named | {"verl_F": masked},
)

lengths = torch.tensor([10, 10, 40, 40, 20, 20, 20, 20])
mask = (torch.arange(40)[None] < lengths[:, None]).float()
rewards = torch.zeros(8, 40)
rewards[0, 9] = rewards[1, 9] = 1.0  # two short successes of the first task, at their last token
tasks = np.array(["mixed"] * 4 + ["failed"] * 4)
plus = verl.compute_reinforce_plus_plus_baseline_outcome_advantage(rewards.clone(), mask, tasks)[0][:, 0]
grpo = verl.compute_grpo_outcome_advantage(rewards.clone(), mask, tasks)[0][:, 0]
print(
    f"a task without a success: reinforce_plus_plus_baseline {plus[4]:+.2f}, grpo {grpo[4]:+.2f} "
    f"(successes of the other task: {plus[0]:+.2f}, {grpo[0]:+.2f})"
)
assert bool((plus[4:] > 0.4).all()) and bool((grpo[4:] == 0).all())
EOF
