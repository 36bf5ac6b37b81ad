#!/usr/bin/env bash
# Guess: the reducer "mode" (majority over epochs) treats a tie as a tie: half a point, the lower score, or an error.
# Version: inspect-ai 0.3.285
# Behaviour: on a tie the score of the epoch that comes first in the list wins. With an even number of epochs, two runs with the same
#   number of successes on the same sample can get 1 and 0, and which one depends on the order alone.
# Output: solved first, then not: 1.0; not, then solved: 0.0; twice each: 1.0 or 0.0
# Why here: with 2 or 4 seeds a task, most tasks that vary are tied at some time, and these are the tasks on which two checkpoints
#   differ. A majority score then repeats the first seed for them, while the table says 4 epochs. aem averages the rollouts of a task,
#   and `aem import` reads the epochs of an Inspect log one by one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet inspect-ai==0.3.285
"$work/venv/bin/python" - << 'EOF'
from inspect_ai.scorer import Score, mode_score


def majority(*values):
    return mode_score()([Score(value=value) for value in values]).value


first, last = majority(1.0, 0.0), majority(0.0, 1.0)
four = majority(1.0, 0.0, 1.0, 0.0), majority(0.0, 1.0, 0.0, 1.0)
print(f"solved first, then not: {first}; not, then solved: {last}; twice each: {four[0]} or {four[1]}")
assert (first, last, four) == (1.0, 0.0, (1.0, 0.0))
EOF
