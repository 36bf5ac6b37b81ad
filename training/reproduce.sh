#!/usr/bin/env bash
# Train the shipped tiny policies and everything the training report shows, from nothing: warm start, then every arm
# under the same budget with the same seeds. A run that is already there is kept; one that was cut short goes on.
# Seeds are the outer loop, so that an interrupted comparison has whole seeds of all arms.
#   training/reproduce.sh [RUNS]      SEEDS="0 1 2 3 4"  JOBS=2  ARMS="..."
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-results/training}
arms=${ARMS:-"tiny-grpo tiny-aem tiny-aem-reversed tiny-entropy-bonus"}
seeds=${SEEDS:-"0 1 2 3 4"}

first="$runs/tiny-warm-start-seed0" base="$runs/tiny-base-seed1"
[ -d "$first/checkpoint" ] || aem train --config tiny-warm-start --out "$first" --resume
[ -d "$base/checkpoint" ] || aem train --config tiny-base -c start="$first/checkpoint" --out "$base" --resume
for seed in $seeds; do for arm in $arms; do echo "$arm $seed"; done; done |
    xargs -P "${JOBS:-2}" -L 1 bash -c '
        folder="$0/$2-seed$3"
        [ -d "$folder/checkpoint" ] || aem train --config "$2" -c seed="$3" -c start="$1" --out "$folder" --resume
    ' "$runs" "$base/checkpoint"
# shellcheck disable=SC2086
python -m aem_harness.training.curves "$runs" "$runs/figures" $arms
