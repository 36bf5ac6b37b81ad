#!/usr/bin/env bash
# Guess: a paired comparison of several repeats a task sees it when a candidate solves every task less often than the baseline.
# Version: nemo-evaluator 0.3.0 (numpy 2.4.6, scipy 1.17.1)
# Behaviour: repeats are averaged for the test, but a task counts as solved when its mean is above 0, in any of the repeats. Where
#   both solve the same tasks at least once, no pair is "discordant", and the verdict PASS is returned before the p-value is
#   looked at; the report holds both. With one repeat a task the same drop is a BLOCK.
# Output: 60 of 100 tasks, solved 4 of 4 times by the baseline and 1 of 4 by the candidate: PASS (no discordant pairs; baseline and
#   candidate produced identical per-sample results), permutation p = 0.0001; one repeat each, 60 and 15 solved: BLOCK
# Why here: repeats are asked for to see small drops, and here they hide a large one: from 60 % to 15 %. Of a stochastic policy
#   several repeats solve almost every task once that one repeat solves sometimes. aem compare and aem gate take the mean over the
#   rollouts of a task, and `aem import` reads the repeats of results.jsonl one by one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1
"$work/venv/bin/pip" download --quiet --no-deps --ignore-requires-python --dest "$work" nemo-evaluator==0.3.0
# Its comparison needs numpy alone, the package around it much more and Python 3.12: the two modules are taken out of it.
"$work/venv/bin/python" -m zipfile -e "$work"/nemo_evaluator-0.3.0-*.whl "$work/wheel"
for module in engine/comparison.py metrics/paired_tests.py; do
  mkdir -p "$work/modules/nemo_evaluator/${module%/*}"
  cp "$work/wheel/nemo_evaluator/$module" "$work/modules/nemo_evaluator/$module"
done
PYTHONPATH="$work/modules" "$work/venv/bin/python" - << 'EOF'
from nemo_evaluator.engine.comparison import compare_results


def records(rewards):
    """Records as results.jsonl has them, of the rewards of each task's repeats."""
    return {
        (task, repeat): {"problem_idx": task, "repeat": repeat, "reward": reward}
        for task, row in enumerate(rewards)
        for repeat, reward in enumerate(row)
    }


never = [[0.0] * 4] * 40
four = compare_results(records([[1.0] * 4] * 60 + never), records([[1.0, 0.0, 0.0, 0.0]] * 60 + never))
once = compare_results(records([[1.0]] * 60 + [[0.0]] * 40), records([[1.0]] * 15 + [[0.0]] * 85))
p = four["permutation_test"]["p_value"]
print(
    "60 of 100 tasks, solved 4 of 4 times by the baseline and 1 of 4 by the candidate: "
    f"{four['verdict']} ({four['verdict_reasons'][0]}), permutation p = {p:.4f}; "
    f"one repeat each, 60 and 15 solved: {once['verdict']}"
)
assert four["verdict"] == "PASS" and p < 0.001 and once["verdict"] == "BLOCK"
EOF
